"""What is written around the parts of a command, and what all calls of a script share."""

cdef enum:
    # The `$` or `*` and the line end around a number, the line end behind a part.
    LENGTH_OVERHEAD = 3
    PART_OVERHEAD = 2
    # An integer of a script's answer; five are about the call, three about each of four legs.
    INTEGER_BYTES = 8
    INTEGERS_MAX = 17


cdef inline bint are_integers(Py_ssize_t size) noexcept:
    """Return whether an answer of so many bytes is integers."""
    return 0 < size <= INTEGERS_MAX * INTEGER_BYTES and size % INTEGER_BYTES == 0


cdef class PreparedCall:
    cdef readonly object script
    #: Whether the script answers one string of integers.
    cdef readonly bint answers_integers
    #: The key of a call without its id, and the other keys.
    cdef readonly bytes call_prefix
    cdef readonly tuple other_keys
    #: What comes before the call's key, without the count of parts; and behind it.
    cdef bytes _head
    cdef bytes _tail
    cdef Py_ssize_t _parts

    cdef bytes command(self, str call_id, list arguments)


cpdef list unpack_integers(bytes packed)
cdef list integers_at(const char* packed, Py_ssize_t size)
