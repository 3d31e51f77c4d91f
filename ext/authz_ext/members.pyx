"""A member named twice in a JSON object: decoders take the last one and say nothing."""

from __future__ import annotations

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp


cdef inline const char* after_blanks(const char* text, const char* end) noexcept:
    """Return where the blanks that JSON allows between its parts end."""
    while text < end and text[0] in (c' ', c'\t', c'\r', c'\n'):
        text += 1
    return text


def may_repeat_a_name(bytes body not None):
    """Return False if no name is there twice in a JSON object that a decoder has accepted."""
    cdef name_t names[MEMBERS_MAX]
    cdef Py_ssize_t known = 0
    cdef Py_ssize_t index, length
    cdef const char* text = PyBytes_AS_STRING(body)
    cdef const char* end = text + PyBytes_GET_SIZE(body)
    cdef const char* quote
    if memchr(text, c'\\', end - text) != NULL:
        return True
    while True:
        # Without escapes every second quote ends a string; a colon behind makes that a name.
        text = <const char*>memchr(text, c'"', end - text)
        if text == NULL:
            return False
        text += 1
        quote = <const char*>memchr(text, c'"', end - text)
        if quote == NULL:
            return False
        length = quote - text
        quote = after_blanks(quote + 1, end)
        if quote < end and quote[0] == c':':
            if known == MEMBERS_MAX:
                return True
            for index in range(known):
                if names[index].length == length and memcmp(names[index].text, text, length) == 0:
                    return True
            names[known].text = text
            names[known].length = length
            known += 1
        text = quote
