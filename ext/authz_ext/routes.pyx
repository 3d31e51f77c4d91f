"""Endpoints as connections serve them, and the counts of their answers."""

from __future__ import annotations

from authz_ext.messages cimport JsonAnswers, Response
from authz_ext.meters cimport Counter, Histogram, monotonic_ns


cdef class AnswerCounts:
    """Counts the answers of one route: how long they took, and how many of each kind."""

    def __init__(self, Histogram seconds not None, Counter successes not None,
                 Counter refusals not None, Counter failures not None):
        self._seconds = seconds
        self._successes = successes
        self._refusals = refusals
        self._failures = failures

    cpdef void count(self, int status, long long began_ns) noexcept:
        """Count an answer to a request that was complete at `began_ns`."""
        self._seconds.count(monotonic_ns() - began_ns)
        if status < 300:
            self._successes.count_one()
        elif status < 500:
            self._refusals.count_one()
        else:
            self._failures.count_one()


cdef class Route:
    """What a pipeline does with the requests of one endpoint."""

    def __init__(self, str name not None, *, decode not None, order_key not None,
                 answer not None, JsonAnswers results, when_overloaded not None,
                 Py_ssize_t overload_factor, bint must_complete, AnswerCounts counts not None):
        self.name = name
        self._decode = decode
        self._order_key = order_key
        self._answer = answer
        self._results = results
        self._when_overloaded = when_overloaded
        self._overload_factor = overload_factor
        self._must_complete = must_complete
        self._counts = counts

    cdef Response response_to(self, result):
        """Return the answer that tells what `answer` has come to."""
        return <Response?>result if self._results is None else self._results.answer_to(result)
