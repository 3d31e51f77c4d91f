"""Measurements of a generator: appended to arrays, handed on as bytes, counted elsewhere."""

from __future__ import annotations

import time

from loadtest.errors import LoadTestError
from loadtest.plan import OK, Samples

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, realloc

cdef enum:
    ROOM_FIRST = 4096
    #: Numbers of outcomes have 16 bits; a server that gives more reasons speaks another API.
    NAMES_MAX = 4096


cdef class Recorder:
    """Keeps one item a request in each of its arrays."""

    def __cinit__(self):
        self._names = [OK]
        self._numbers = {OK: 0}
        self._numbers_said = {}

    def __dealloc__(self):
        free(self._operations)
        free(self._outcomes)
        free(self._dues)
        free(self._latencies)
        free(self._lags)

    cdef int number(self, str outcome) except -1:
        """Return the number of an outcome, which it has from now on; that of OK is 0."""
        number = self._numbers.get(outcome)
        if number is None:
            if len(self._names) >= NAMES_MAX:
                raise LoadTestError(f"the answers name more than {NAMES_MAX} reasons")
            number = self._numbers[outcome] = len(self._names)
            self._names.append(outcome)
        return number

    cdef int number_said(self, const char* text, Py_ssize_t size) except -1:
        """Return the number of an outcome that an answer names in UTF-8."""
        said = PyBytes_FromStringAndSize(text, size)
        number = self._numbers_said.get(said)
        if number is None:
            number = self._numbers_said[said] = self.number(said.decode())
        return number

    cdef int note(
        self, int operation, int outcome, int64_t due_ns, int64_t sent_ns, int64_t answered_ns
    ) except -1:
        cdef Py_ssize_t place = self._count
        if place == self._room:
            self.grow()
        self._operations[place] = operation
        self._outcomes[place] = outcome
        self._dues[place] = due_ns
        self._latencies[place] = answered_ns - due_ns
        self._lags[place] = sent_ns - due_ns
        self._count = place + 1
        return 0

    cdef int grow(self) except -1:
        cdef Py_ssize_t room = max(2 * self._room, ROOM_FIRST)
        self._operations = <uint8_t*>resized(self._operations, room, sizeof(uint8_t))
        self._outcomes = <uint16_t*>resized(self._outcomes, room, sizeof(uint16_t))
        self._dues = <uint64_t*>resized(self._dues, room, sizeof(uint64_t))
        self._latencies = <uint64_t*>resized(self._latencies, room, sizeof(uint64_t))
        self._lags = <uint64_t*>resized(self._lags, room, sizeof(uint64_t))
        self._room = room
        return 0

    def record(self, operation, outcome, due_ns, sent_ns, answered_ns):
        """Note one request. Its latency counts from `due_ns`, whenever it was sent."""
        self.note(operation, self.number(outcome), due_ns, sent_ns, answered_ns)

    def take(self, in_flight, calls, state):
        """Return what was noted since the last time, and forget it."""
        cdef Py_ssize_t count = self._count
        self._count = 0
        return Samples(
            operations=column(self._operations, count, sizeof(uint8_t)),
            outcomes=column(self._outcomes, count, sizeof(uint16_t)),
            dues=column(self._dues, count, sizeof(uint64_t)),
            latencies=column(self._latencies, count, sizeof(uint64_t)),
            lags=column(self._lags, count, sizeof(uint64_t)),
            outcome_names=tuple(self._names),
            in_flight=in_flight,
            calls=calls,
            cpu_ns=time.process_time_ns(),
            state=state,
        )


cdef void* resized(void* items, Py_ssize_t count, Py_ssize_t size) except NULL:
    cdef void* moved = realloc(items, count * size)
    if moved == NULL:
        raise MemoryError
    return moved


cdef bytes column(void* items, Py_ssize_t count, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<char*>items, count * size) if count else b""
