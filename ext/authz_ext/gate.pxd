"""Layout of the call gate: one entry for each account, one record for each live call."""

from cpython.object cimport PyObject

from authz_ext.tables cimport SpreadTable


cdef class Account:
    cdef str name
    # What the store proved last, and when it was asked (own monotonic clock).
    cdef long long version
    cdef long long sent_us
    cdef long long store_us
    cdef long long arrival_us
    cdef long long blocked_until_us
    # Calls admitted in the second `second` of the own clock, and in the one before it.
    cdef long long second
    cdef long long admitted_this_second
    cdef long long admitted_last_second
    # Live calls of this process by direction * CLASSES + class.
    cdef long long live[16]
    cdef long long live_count

    cdef bint learn(self, long long version, long long sent_us, long long store_us,
                    long long proof_us_max)
    cdef void count_admission(self, long long now_us)
    cdef bint proves_rate_exceeded(self, long long calls_per_second, long long latest_us)


cdef enum:
    #: Accounts of a chain; more than the engine allows.
    CHAIN_MAX = 8


cdef class LiveCall:
    cdef object key
    # Accounts of its chain (each one a reference), and how many they are.
    cdef PyObject* accounts[CHAIN_MAX]
    cdef int legs
    cdef int index
    cdef long long lease_until_us
    # Where it is filed, and its neighbours there (borrowed).
    cdef long long slot
    cdef PyObject* before
    cdef PyObject* after


cdef class CallGate:
    cdef readonly long long margin_us
    cdef readonly long long proof_us_max
    cdef readonly long long refused
    cdef readonly long long admitted_total
    cdef readonly long long lapsed
    cdef dict _accounts
    cdef object _sweep_order
    # Looks at accounts that are due.
    cdef int _unswept
    cdef SpreadTable _calls
    # The first call of each slot that has any.
    cdef dict _slots
    cdef long long _slot_next
    cdef long long _totals[16]

    cdef int _reason_against(
        self, str account, long long version, long long calls_per_second, long long max_calls,
        long long class_limit, int direction, int call_class, long long now_us,
    ) except -1
    cdef int _admitted(
        self, str account, long long version, long long calls_per_second, long long sent_us,
        long long store_us,
    ) except -1
    cdef Account _entry(self, str name, long long now_us)
    cdef void _sweep(self, long long now_us)
    cdef int _expire(self, long long now_us, Py_ssize_t looks) except -1
    cdef int _file(self, LiveCall call) except -1
    cdef int _unfile(self, LiveCall call) except -1
    cdef void _count(self, LiveCall call, int step)
