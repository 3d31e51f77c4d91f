"""Layout of what a process remembers of a call."""

from libc.stdint cimport int64_t, uint32_t

from authz_ext.tables cimport Latest

cpdef str call_key(str account, str call_id)


cdef class Plan:
    cdef readonly str key
    cdef readonly str account
    cdef readonly str call_id
    cdef readonly int64_t attempt
    cdef readonly object call_class
    cdef readonly object direction
    cdef readonly str number
    cdef readonly str dialled
    cdef readonly str switch
    #: A Rate or None for each leg, and how each pays.
    cdef readonly tuple rates
    cdef readonly tuple billings
    cdef readonly int64_t authorized_at
    cdef readonly bint in_store
    cdef readonly object rate_number
    cdef readonly bint is_emergency
    #: A bit for each leg that credit can cut short, and whether a rate ends any of them.
    cdef uint32_t limiting_legs
    cdef readonly bint is_ended_by_rate

    cdef int find_limits(self) except -1
    cdef int64_t cost_of_leg(self, Py_ssize_t leg, int64_t seconds, int64_t answered_at) except -1


cdef class CallMemory:
    #: By `call_key`.
    cdef Latest _plans
