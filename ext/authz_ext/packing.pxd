"""What is written around the parts of a command and the texts of a record."""

cdef enum:
    # The `$` or `*` and the line end around a number, the line end behind a part.
    LENGTH_OVERHEAD = 3
    PART_OVERHEAD = 2
    # A text's length is one byte.
    TEXT_BYTES_MAX = 255
