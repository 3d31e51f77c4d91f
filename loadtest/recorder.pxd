"""Measurements of a generator."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t


cdef class Recorder:
    cdef list _names
    #: Numbers of outcomes by their name, and by the bytes of an answer that said it.
    cdef dict _numbers
    cdef dict _numbers_said
    #: A column each; so many are filled, of so many that have room.
    cdef uint8_t* _operations
    cdef uint16_t* _outcomes
    cdef uint64_t* _dues
    cdef uint64_t* _latencies
    cdef uint64_t* _lags
    cdef Py_ssize_t _count
    cdef Py_ssize_t _room

    cdef int number(self, str outcome) except -1
    cdef int number_said(self, const char* text, Py_ssize_t size) except -1
    cdef int note(
        self, int operation, int outcome, int64_t due_ns, int64_t sent_ns, int64_t answered_ns
    ) except -1
    cdef int grow(self) except -1
