"""Members of JSON objects: where the name of one begins and how long it is; decoding them."""

cdef enum:
    # Objects of more members than any request has are looked at by the slow way.
    MEMBERS_MAX = 32

cdef struct name_t:
    const char* text
    Py_ssize_t length


cdef bint may_repeat(bytes body) noexcept


cdef class StrictDecoder:
    cdef object _decode
    cdef object _refusal
    cdef object _check_names
    cdef object _decode_loosely
    cdef list _words

    cdef value_of(self, bytes body)
    cdef quick_value_of(self, bytes body)
