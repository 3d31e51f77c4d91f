"""Texts as the store's records have them: UTF-8, each led by its length in one byte."""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memcpy

cdef enum:
    # The length is one byte.
    TEXT_BYTES_MAX = 255


cdef inline Py_ssize_t text_size(str text) except -1:
    """Return the bytes of a text, of a longer one of as many whole characters as fit."""
    cdef Py_ssize_t size
    cdef const char* raw = PyUnicode_AsUTF8AndSize(text, &size)
    if size > TEXT_BYTES_MAX:
        size = TEXT_BYTES_MAX
        # The first byte that is left out must begin a character.
        while raw[size] & 0xC0 == 0x80:
            size -= 1
    return size


cdef inline char* put_text(char* target, str text) except NULL:
    """Write a text with its length; return where the next byte goes."""
    cdef Py_ssize_t size
    cdef const char* raw = PyUnicode_AsUTF8AndSize(text, &size)
    if size > TEXT_BYTES_MAX:
        size = text_size(text)
    target[0] = <char>size
    memcpy(target + 1, raw, size)
    return target + 1 + size
