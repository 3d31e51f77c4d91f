"""Texts of which every character is of a kind: what most patterns of fields say."""

from __future__ import annotations

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    const unsigned char* PyUnicode_1BYTE_DATA(object text)

cdef enum:
    FIRST = 1
    FURTHER = 2


cdef class Word:
    """`size_min` to `size_max` ASCII characters: one of `first`, then any of `further`."""

    def __init__(self, str first not None, str further not None, Py_ssize_t size_min,
                 Py_ssize_t size_max):
        for kind, characters in ((FIRST, first), (FURTHER, further)):
            for character in characters.encode("ascii"):
                self._kinds[character] |= kind
        self._size_min = size_min
        self._size_max = size_max

    def allows(self, str text not None):
        """Return whether a text is such a word."""
        return self.is_one(text)

    cdef bint is_one(self, text) noexcept:
        cdef const unsigned char* characters
        cdef Py_ssize_t place, size
        if type(text) is not str or not PyUnicode_IS_COMPACT_ASCII(text):
            return False
        size = PyUnicode_GET_LENGTH(text)
        if not self._size_min <= size <= self._size_max:
            return False
        characters = PyUnicode_1BYTE_DATA(text)
        if size and not self._kinds[characters[0]] & FIRST:
            return False
        for place in range(1, size):
            if not self._kinds[characters[place]] & FURTHER:
                return False
        return True
