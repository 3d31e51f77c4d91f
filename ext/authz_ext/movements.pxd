from libc.stdint cimport int64_t

cdef enum:
    # An entry with more legs or texts is left to the general reader.
    LEGS_MAX = 8
    # So many texts follow those of the legs, or one more.
    WORDS = 3
    TEXTS_MAX = LEGS_MAX + WORDS + 1

cdef struct Field:
    Py_ssize_t offset
    Py_ssize_t width
    bint is_signed

cdef struct Text:
    const char* start
    Py_ssize_t length

cdef struct Head:
    Field kind
    Field marks
    Field call_class
    Field direction
    Field legs
    Field seconds
    Field sequence
    Field started_at

cdef struct Leg:
    Field billing
    Field sequence
    Field amount
    Field balance

cdef class MovementReader:
    cdef Head head
    cdef Leg leg
    cdef Py_ssize_t head_size
    cdef Py_ssize_t leg_size
    cdef int64_t kinds
    cdef int64_t marks
    cdef int64_t classes
    cdef int64_t directions
    cdef int64_t billings
    cdef dict causes

    cdef bint append(self, list rows, int bucket, object entry, int64_t expected) except -1
    cdef bint append_legs(
        self,
        list rows,
        int bucket,
        const unsigned char* data,
        const Text* texts,
        Py_ssize_t count,
        int64_t booked_us,
    ) except -1
