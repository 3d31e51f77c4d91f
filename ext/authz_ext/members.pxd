"""One member of a JSON object: where its name begins and how long it is."""

cdef enum:
    # Objects of more members than any request has are looked at by the slow way.
    MEMBERS_MAX = 32

cdef struct name_t:
    const char* text
    Py_ssize_t length
