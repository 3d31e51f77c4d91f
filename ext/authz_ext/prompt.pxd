"""Replies and the errands that wait for them."""

cdef enum:
    # States of a reply.
    PENDING = 0
    FINISHED = 1
    CANCELLED = 2


cdef class Reply:
    cdef object _loop
    cdef object _value
    cdef object _error
    cdef int _state
    #: Who goes on at once when the reply is there, and what the event loop calls then.
    cdef Errand _errand
    cdef list _callbacks
    #: By this asyncio knows a future, and that a task waits for it.
    cdef public bint _asyncio_future_blocking

    cpdef set_result(self, value)
    cpdef set_exception(self, error)
    cdef check_pending(self)
    cdef tell(self)


cdef class Errand:
    cdef object _coroutine

    cdef go_on(self)
    cdef become_task(self, awaited)
    cdef end(self, value, error)
    cdef ended(self, value, error)


cdef class ToldErrand(Errand):
    cdef object _on_end
    cdef object _subject


cdef class Rest:
    cdef object _coroutine
    cdef object _awaited
    cdef bint _is_waiting
    #: Whether what it waits for is a future, marked as asyncio does while a task begins to wait.
    cdef bint _is_marked
