"""Tables of what a process remembers, in which a step moves a part of the entries at the most.

A dict that has outgrown its memory moves all its entries in one step, and one from which entries
are taken out does so again and again; an OrderedDict looks each of them up besides. With 100,000
live calls all calls waited for that, for 10 to 30 ms (`python -m benchmarks.table_pauses`). Here
the entries are spread over 256 dicts, each of which is moved by itself.
"""

from __future__ import annotations

cimport cython
from cpython.object cimport PyObject, PyObject_Hash
from libc.stdint cimport uint64_t

cdef enum:
    PARTS = 256
    #: Of the 64 bits of a mixed hash those that name one of the parts.
    PART_SHIFT = 56

#: Fibonacci hashing: keys next to each other are spread too, and the low bits stay the dicts'.
cdef uint64_t MIXER = 0x9E3779B97F4A7C15


cdef inline Py_ssize_t place_of(object key) except -1:
    return <Py_ssize_t>((<uint64_t>PyObject_Hash(key) * MIXER) >> PART_SHIFT)


@cython.final
cdef class SpreadTable:
    """A dict in 256 parts; None is no value. For keys whose hash and comparison run no Python."""

    def __cinit__(self):
        self._parts = [None] * PARTS

    cdef object find(self, object key):
        """Return the value of a key, or None."""
        part = self._parts[place_of(key)]
        return None if part is None else (<dict>part).get(key)

    cdef int add(self, object key, object value) except -1:
        """Put in a key that is not there."""
        cdef Py_ssize_t place = place_of(key)
        part = self._parts[place]
        if part is None:
            # A table that holds little takes little: there are two for each deck.
            part = self._parts[place] = {}
        (<dict>part)[key] = value
        self.size += 1
        return 0

    cdef object take(self, object key):
        """Take a key out and return its value, or None."""
        part = self._parts[place_of(key)]
        value = None if part is None else (<dict>part).pop(key, None)
        if value is not None:
            self.size -= 1
        return value


@cython.final
@cython.no_gc  # what is remembered here refers to no table
@cython.freelist(256)
cdef class Entry:
    """One entry of `Latest`."""


@cython.final
cdef class Latest:
    """A mapping of the latest keys: beyond `entries_max` the oldest one is forgotten.

    A key that is put again keeps its age. Keys are texts, numbers and tuples of them; a value is
    not None, and does not lead back to the table.
    """

    def __cinit__(self, Py_ssize_t entries_max):
        if entries_max < 1:
            raise ValueError("entries_max: expected at least 1")
        self._entries = SpreadTable()
        self._entries_max = entries_max
        self._oldest = NULL
        self._newest = NULL

    def get(self, key):
        """Return the value of a key, or None."""
        return self.find(key)

    def put(self, key, value not None):
        """Set the value of a key."""
        self.remember(key, value)

    def pop(self, key):
        """Forget a key and return its value, or None."""
        return self.take(key)

    def forget_oldest(self, Py_ssize_t count):
        """Forget so many of the oldest keys, as far as there are any."""
        while count > 0 and self._oldest != NULL:
            self._take_oldest()
            count -= 1

    def clear(self):
        """Forget all keys, in one step that takes the longer the more there are."""
        before = self._entries
        self._oldest = NULL
        self._newest = NULL
        self._entries = SpreadTable()
        # Only now is anything freed.
        del before

    def __contains__(self, key):
        return self.find(key) is not None

    def __len__(self):
        return self._entries.size

    cdef object find(self, object key):
        found = self._entries.find(key)
        return None if found is None else (<Entry>found).value

    cdef int remember(self, object key, object value) except -1:
        cdef Entry entry
        found = self._entries.find(key)
        if found is not None:
            (<Entry>found).value = value
            return 0
        entry = Entry.__new__(Entry)
        entry.key = key
        entry.value = value
        self._entries.add(key, entry)
        entry.older = self._newest
        if self._newest != NULL:
            (<Entry>self._newest).newer = <PyObject*>entry
        else:
            self._oldest = <PyObject*>entry
        self._newest = <PyObject*>entry
        if self._entries.size > self._entries_max:
            self._take_oldest()
        return 0

    cdef object take(self, object key):
        found = self._entries.take(key)
        if found is None:
            return None
        self._unlink(<Entry>found)
        return (<Entry>found).value

    cdef object _take_oldest(self):
        return self.take((<Entry>self._oldest).key)

    cdef int _unlink(self, Entry entry) except -1:
        if entry.older != NULL:
            (<Entry>entry.older).newer = entry.newer
        else:
            self._oldest = entry.newer
        if entry.newer != NULL:
            (<Entry>entry.newer).older = entry.older
        else:
            self._newest = entry.older
        return 0
