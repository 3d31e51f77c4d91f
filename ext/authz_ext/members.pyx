"""A member named twice in a JSON object: decoders take the last one and say nothing."""

from __future__ import annotations

from msgspec import DecodeError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from authz_ext.messages cimport Request
from authz_ext.words cimport Word


cdef inline const char* after_blanks(const char* text, const char* end) noexcept:
    """Return where the blanks that JSON allows between its parts end."""
    while text < end and text[0] in (c' ', c'\t', c'\r', c'\n'):
        text += 1
    return text


def may_repeat_a_name(bytes body not None):
    """Return False if no name is there twice in a JSON object that a decoder has accepted."""
    return may_repeat(body)


cdef bint may_repeat(bytes body) noexcept:
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


cdef class StrictDecoder:
    """Decodes JSON objects in which no name may be there twice."""

    def __init__(self, decode not None, refusal not None, check_names not None, *,
                 decode_loosely not None, dict words not None):
        self._decode = decode
        self._refusal = refusal
        self._check_names = check_names
        self._decode_loosely = decode_loosely
        self._words = list(words.items())

    def decode(self, bytes body not None):
        """Return what a body says."""
        return self.value_of(body)

    def decode_body(self, Request request not None):
        """Return what the body of a request says."""
        return self.value_of(request.body)

    cdef value_of(self, bytes body):
        value = self.quick_value_of(body)
        if value is None:
            try:
                value = self._decode(body)
            except (DecodeError, UnicodeDecodeError) as error:
                raise self._refusal(body, error) from None
        if may_repeat(body):
            self._check_names(body)
        return value

    cdef quick_value_of(self, bytes body):
        """Return what a body says, or None if only `decode` can tell, or tell what is wrong."""
        try:
            value = self._decode_loosely(body)
        except Exception:
            return None
        for name, word in self._words:
            text = getattr(value, name)
            if text is not None and not (<Word>word).is_one(text):
                return None
        return value
