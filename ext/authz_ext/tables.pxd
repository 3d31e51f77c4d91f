"""Layout of the tables of what a process remembers."""

from cpython.object cimport PyObject


cdef class SpreadTable:
    #: Dicts, each with a part of the entries; which one is told by the hash of the key. None: empty.
    cdef list _parts
    cdef Py_ssize_t size

    cdef object find(self, object key)
    cdef int add(self, object key, object value) except -1
    cdef object take(self, object key)


cdef class Entry:
    cdef object key
    cdef object value
    # Its neighbours by age (borrowed).
    cdef PyObject* older
    cdef PyObject* newer


cdef class Latest:
    cdef SpreadTable _entries
    cdef Py_ssize_t _entries_max
    # Borrowed as well: the table has them.
    cdef PyObject* _oldest
    cdef PyObject* _newest

    cdef object find(self, object key)
    cdef int remember(self, object key, object value) except -1
    cdef object take(self, object key)
    cdef object _take_oldest(self)
    cdef int _unlink(self, Entry entry) except -1
