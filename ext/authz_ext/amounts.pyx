"""Amounts of money as text: the answer to every call carries several."""

from __future__ import annotations

from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdint cimport int64_t, uint64_t


def format_amount(int64_t micros):
    """Return micros as the shortest decimal string: `9990000` is `"9.99"`."""
    return amount_text(micros)


cdef str amount_text(int64_t micros):
    """As `format_amount`, for other extensions."""
    cdef char text[TEXT_LENGTH_MAX]
    cdef int position = TEXT_LENGTH_MAX
    # Negating as unsigned is defined for the smallest number too.
    cdef uint64_t rest = <uint64_t>micros if micros >= 0 else 0 - <uint64_t>micros
    cdef uint64_t part = rest % MICROS_PER_UNIT
    cdef int decimals = DECIMALS
    rest = rest // MICROS_PER_UNIT
    if part:
        while part % 10 == 0:
            part = part // 10
            decimals -= 1
        while decimals:
            position -= 1
            text[position] = c'0' + <char>(part % 10)
            part = part // 10
            decimals -= 1
        position -= 1
        text[position] = c'.'
    while True:
        position -= 1
        text[position] = c'0' + <char>(rest % 10)
        rest = rest // 10
        if rest == 0:
            break
    if micros < 0:
        position -= 1
        text[position] = c'-'
    return PyUnicode_DecodeASCII(text + position, TEXT_LENGTH_MAX - position, NULL)
