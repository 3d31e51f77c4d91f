"""Layout of the number rules, for extensions that class numbers without Python calls."""

from libc.stdint cimport uint8_t


cdef enum:
    # Longest dialled string read, and room for what a rule puts before it.
    DIALLED_LENGTH_MAX = 128
    PREFIX_LENGTH_MAX = 32


cdef struct number_t:
    char text[DIALLED_LENGTH_MAX + PREFIX_LENGTH_MAX]
    Py_ssize_t length
    # Where its last part of nothing but digits begins.
    Py_ssize_t digits_from


cdef struct rule_t:
    char prefix[PREFIX_LENGTH_MAX]
    char replacement[PREFIX_LENGTH_MAX]
    Py_ssize_t prefix_length
    Py_ssize_t replacement_length
    Py_ssize_t digits_min
    Py_ssize_t digits_max
    # Whether it makes +1 numbers, which must then be possible ones.
    bint north_american


cdef class NumberRules:
    cdef rule_t* _rules
    cdef int _rule_count
    cdef uint8_t _area_classes[1000]
    cdef uint8_t _country_classes[1000]
    cdef frozenset _emergency
    cdef Py_ssize_t _emergency_length_max
    cdef dict _class_by_prefix
    cdef Py_ssize_t _prefix_length_max

    cdef int _add_rule(self, str prefix, str replacement, Py_ssize_t digits_min,
                       Py_ssize_t digits_max) except -1
    cdef void _normalize(self, number_t* number) noexcept
    cdef int _class_of(self, const number_t* number) except -1
    cdef int _configured_class(self, const number_t* number, Py_ssize_t digits_min,
                               int built_in) except -1
