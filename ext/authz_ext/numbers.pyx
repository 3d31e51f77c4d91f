# cython: cdivision=True
"""Dialled strings to E.164 numbers, and numbers to classes, by tables and without regexes.

The tables and what they mean are in `authz/numbers.py`; here is only how they are applied.
"""

from __future__ import annotations

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.unicode cimport PyUnicode_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_IS_ASCII(object text)


cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* one, const char* other, size_t length)


cdef enum:
    RULES_MAX = 256
    # E.164: at most 15 digits, and no country has numbers of fewer than 7.
    E164_DIGITS_MAX = 15
    E164_DIGITS_MIN = 7
    NORTH_AMERICAN_LENGTH = 12
    # Digits of the prefixes by which the built-in classes are told.
    COUNTRY_CODE_DIGITS = 3
    AREA_CODE_DIGITS = 4

# The values of authz.reasons.CallClass; tests hold the two together.
cdef enum call_class_t:
    EMERGENCY = 0
    NATIONAL = 4
    INTERNATIONAL = 5
    UNKNOWN = 7

# What people write between digits, and nothing that a switch would dial.
cdef const char* SEPARATORS = " \t-.()[]"


cdef inline bint is_digit(char character) noexcept:
    return c'0' <= character <= c'9'


cdef bint is_separator(char character) noexcept:
    """Say whether the character only makes a number readable."""
    cdef Py_ssize_t position
    for position in range(8):
        if SEPARATORS[position] == character:
            return True
    return False


cdef Py_ssize_t scheme_length(const char* text, Py_ssize_t length) noexcept:
    """Return the length of a leading `sip:`, `sips:` or `tel:`, in any case, or 0."""
    if length >= 4 and text[3] == c':' and (
        strncasecmp(text, "sip", 3) == 0 or strncasecmp(text, "tel", 3) == 0
    ):
        return 4
    if length >= 5 and text[4] == c':' and strncasecmp(text, "sips", 4) == 0:
        return 5
    return 0


cdef void clean(const char* text, Py_ssize_t length, number_t* number) noexcept:
    """Copy what was dialled: no URI scheme, host or parameters, no separators."""
    cdef Py_ssize_t position
    cdef Py_ssize_t kept = 0
    cdef char character
    number.digits_from = 0
    for position in range(scheme_length(text, length), length):
        character = text[position]
        if is_digit(character):
            number.text[kept] = character
            kept += 1
        elif character == c';' or character == c'@':
            break
        elif not is_separator(character):
            number.text[kept] = character
            kept += 1
            number.digits_from = kept
    number.length = kept


cdef inline bint is_north_american(const number_t* number) noexcept:
    """Say whether a number that starts with +1 goes on as [2-9]XX[2-9]XXXXXX."""
    return (
        number.length == NORTH_AMERICAN_LENGTH
        and number.digits_from == 1
        and number.text[2] >= c'2'
        and number.text[5] >= c'2'
    )


cdef inline int three_digits(const char* text) noexcept:
    """Return the value of three digits."""
    return (text[0] - c'0') * 100 + (text[1] - c'0') * 10 + (text[2] - c'0')


cdef bint fits(const rule_t* rule, const number_t* number) noexcept:
    """Say whether the rule is one for this dialled string."""
    cdef Py_ssize_t digits = number.length
    if number.length > 0 and number.text[0] == c'+':
        digits -= 1
    return (
        rule.digits_min <= digits <= rule.digits_max
        and rule.prefix_length <= number.length
        and number.digits_from <= rule.prefix_length
        and memcmp(number.text, rule.prefix, rule.prefix_length) == 0
    )


cdef bint apply_rule(const rule_t* rule, number_t* number) noexcept:
    """Replace the prefix, unless that makes an impossible +1 number."""
    cdef number_t changed
    cdef Py_ssize_t rest = number.length - rule.prefix_length
    memcpy(changed.text, rule.replacement, rule.replacement_length)
    memcpy(changed.text + rule.replacement_length, number.text + rule.prefix_length, rest)
    changed.length = rule.replacement_length + rest
    changed.digits_from = 1
    if rule.north_american and not is_north_american(&changed):
        return False
    memcpy(number.text, changed.text, changed.length)
    number.length = changed.length
    number.digits_from = 1
    return True


cdef str as_text(const number_t* number, str dialled):
    """Return the number as a string: the dialled one itself where nothing was changed."""
    cdef Py_ssize_t length
    cdef const char* text = PyUnicode_AsUTF8AndSize(dialled, &length)
    if length == number.length and memcmp(text, number.text, length) == 0:
        return dialled
    return PyUnicode_FromStringAndSize(number.text, number.length)


cdef bint load(str dialled, number_t* number) except -1:
    """Clean a dialled string; False for one that cannot be a number at all."""
    cdef Py_ssize_t length
    if not PyUnicode_IS_ASCII(dialled):
        return False
    cdef const char* text = PyUnicode_AsUTF8AndSize(dialled, &length)
    if length > DIALLED_LENGTH_MAX:
        return False
    clean(text, length, number)
    return True


@cython.final
cdef class NumberRules:
    """Normalises and classes dialled strings. Immutable; made by `authz.numbers`.

    `rules` are (prefix, replacement, digits_min, digits_max), the first that fits is used.
    `area_classes` has a class for each +1 area code, `country_classes` one for the first three
    digits of every other number. `class_by_prefix` goes before these where its prefix is at
    least as long as theirs. `emergency` strings are compared whole. Raises ValueError.
    """

    def __cinit__(self, *, rules, emergency, bytes area_classes not None,
                  bytes country_classes not None, class_by_prefix):
        cdef number_t number
        if len(area_classes) != 1000 or len(country_classes) != 1000:
            raise ValueError("area_classes and country_classes must have 1000 bytes each")
        memcpy(self._area_classes, <const char*>area_classes, 1000)
        memcpy(self._country_classes, <const char*>country_classes, 1000)
        rules = tuple(rules)
        if len(rules) > RULES_MAX:
            raise ValueError(f"at most {<int>RULES_MAX} rules")
        self._rules = <rule_t*>PyMem_Calloc(max(1, len(rules)), sizeof(rule_t))
        if self._rules == NULL:
            raise MemoryError
        for prefix, replacement, digits_min, digits_max in rules:
            self._add_rule(prefix, replacement, digits_min, digits_max)
        strings = set()
        for dialled in emergency:
            if not load(dialled, &number) or number.length == 0:
                raise ValueError(f"an emergency number cannot be {dialled!r}")
            strings.add(PyUnicode_FromStringAndSize(number.text, number.length))
        self._emergency = frozenset(strings)
        self._emergency_length_max = max([len(dialled) for dialled in strings], default=0)
        self._class_by_prefix = dict(class_by_prefix)
        self._prefix_length_max = max([len(prefix) for prefix in class_by_prefix], default=0)

    def __dealloc__(self):
        PyMem_Free(self._rules)

    cdef int _add_rule(self, str prefix, str replacement, Py_ssize_t digits_min,
                       Py_ssize_t digits_max) except -1:
        """Append a rule. Its result must begin with + and have only digits behind."""
        cdef rule_t* rule = &self._rules[self._rule_count]
        cdef bytes before = prefix.encode("ascii")
        cdef bytes after = replacement.encode("ascii")
        if max(len(before), len(after)) > PREFIX_LENGTH_MAX:
            raise ValueError(f"the prefix {prefix!r} or what replaces it is too long")
        if not (after == b"+" or (after[:1] == b"+" and after[1:].isdigit())):
            raise ValueError(f"{replacement!r} must be + and digits")
        memcpy(rule.prefix, <const char*>before, len(before))
        memcpy(rule.replacement, <const char*>after, len(after))
        rule.prefix_length = len(before)
        rule.replacement_length = len(after)
        rule.digits_min = digits_min
        rule.digits_max = digits_max
        rule.north_american = after.startswith(b"+1")
        self._rule_count += 1
        return 0

    def normalize(self, str dialled not None):
        """Return the E.164 number, or the cleaned string itself where no rule fits."""
        cdef number_t number
        if not load(dialled, &number):
            return dialled
        self._normalize(&number)
        return as_text(&number, dialled)

    def classify(self, str dialled not None):
        """Return the normalised number and its class, an `authz.reasons.CallClass` value."""
        cdef number_t number
        if not load(dialled, &number):
            return (dialled, UNKNOWN)
        if number.length <= self._emergency_length_max:
            text = as_text(&number, dialled)
            if text in self._emergency:
                return (text, EMERGENCY)
        self._normalize(&number)
        return (as_text(&number, dialled), self._class_of(&number))

    cdef void _normalize(self, number_t* number) noexcept:
        """Apply the first rule that fits."""
        cdef int position
        for position in range(self._rule_count):
            if fits(&self._rules[position], number) and apply_rule(&self._rules[position], number):
                return

    cdef int _class_of(self, const number_t* number) except -1:
        """Return the class of a normalised number."""
        cdef Py_ssize_t digits = number.length - 1
        cdef int built_in
        if (
            number.digits_from != 1
            or number.text[0] != c'+'
            or number.text[1] == c'0'
            or not 1 <= digits <= E164_DIGITS_MAX
        ):
            return UNKNOWN
        if number.text[1] == c'1':
            if not is_north_american(number):
                return UNKNOWN
            built_in = self._area_classes[three_digits(number.text + 2)]
            return self._configured_class(
                number, 1 if built_in == NATIONAL else AREA_CODE_DIGITS, built_in
            )
        if digits < E164_DIGITS_MIN:
            return self._configured_class(number, 1, UNKNOWN)
        built_in = self._country_classes[three_digits(number.text + 1)]
        return self._configured_class(
            number, 1 if built_in == INTERNATIONAL else COUNTRY_CODE_DIGITS, built_in
        )

    cdef int _configured_class(self, const number_t* number, Py_ssize_t digits_min,
                               int built_in) except -1:
        """Return the class of the longest configured prefix of so many digits, or `built_in`."""
        cdef Py_ssize_t length
        if not self._class_by_prefix:
            return built_in
        for length in range(min(self._prefix_length_max, number.length), digits_min, -1):
            found = self._class_by_prefix.get(PyUnicode_FromStringAndSize(number.text, length))
            if found is not None:
                return found
        return built_in
