"""Layout of what the scripts are told alike of many calls."""

from libc.stdint cimport int64_t

from authz_ext.plans cimport Plan

cdef enum:
    PLACES_MAX = 8


cdef class Template:
    cdef bytes _packed
    cdef int _count
    cdef Py_ssize_t _offsets[PLACES_MAX]
    cdef int _widths[PLACES_MAX]
    cdef bint _are_signed[PLACES_MAX]

    cdef bytes filled(self, const int64_t* values, int count)


cdef class Briefing:
    #: It holds from this store second up to, not including, that one.
    cdef readonly int64_t holds_from
    cdef readonly int64_t holds_until
    #: The store seconds in which the day and month of its limits hold, and its hour.
    cdef readonly int64_t valid_from
    cdef readonly int64_t valid_until
    cdef readonly int64_t hour
    #: For how many hours the store remembers settled calls.
    cdef readonly int64_t closed_hours
    #: Keys of the hour's tombstones, and of the filters of its day and of the day before.
    cdef readonly tuple tombstones
    cdef readonly tuple filters
    cdef bytes _member_prefix
    cdef bytes _packed_accounts
    cdef Template _reserve
    cdef Template _settle
    cdef object _limits_of
    #: The packed limits of every account, by the call's class, once asked for.
    cdef list _limits

    cdef bytes member(self, str call_id)
    cdef bytes strings(self, str reference, str number, str description)
    cdef list with_limits(self, list arguments, int call_class)
