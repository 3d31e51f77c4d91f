"""What every decision puts together as bytes: the command with its parts, texts in records."""

from __future__ import annotations

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

cdef bytes EVALSHA = b"EVALSHA"


cdef inline Py_ssize_t digits_of(Py_ssize_t number) noexcept:
    """Return how many decimal digits a number has that is not negative."""
    cdef Py_ssize_t digits = 1
    while number >= 10:
        number = number // 10
        digits += 1
    return digits


cdef inline Py_ssize_t packed_size(bytes part):
    """Return how many bytes a part takes with its length."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(part)
    return LENGTH_OVERHEAD + digits_of(size) + size + PART_OVERHEAD


cdef inline char* write_length(char* target, char mark, Py_ssize_t number) noexcept:
    """Write `<mark><number>` and a line end; return where the next byte goes."""
    cdef Py_ssize_t digits = digits_of(number)
    cdef Py_ssize_t position
    target[0] = mark
    for position in range(digits, 0, -1):
        target[position] = c'0' + <char>(number % 10)
        number = number // 10
    target[digits + 1] = c'\r'
    target[digits + 2] = c'\n'
    return target + LENGTH_OVERHEAD + digits


cdef inline char* write_part(char* target, bytes part):
    """Write a part with its length; return where the next byte goes."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(part)
    target = write_length(target, c'$', size)
    memcpy(target, PyBytes_AS_STRING(part), size)
    target[size] = c'\r'
    target[size + 1] = c'\n'
    return target + size + PART_OVERHEAD


def pack_script_call(str sha1 not None, keys, arguments):
    """Return `EVALSHA sha1 <number of keys> keys... arguments...` as one RESP command.

    Keys are bytes; an argument may also be an int or a str. TypeError for anything else.
    """
    cdef list parts = [EVALSHA, sha1.encode(), str(len(keys)).encode(), *keys]
    cdef Py_ssize_t size
    cdef bytes command
    cdef char* target
    for argument in arguments:
        if isinstance(argument, bytes):
            parts.append(argument)
        elif isinstance(argument, (int, str)):
            parts.append(str(argument).encode())
        else:
            raise TypeError(f"a script's argument cannot be a {type(argument).__name__}")
    size = LENGTH_OVERHEAD + digits_of(len(parts))
    for part in parts:
        if not isinstance(part, bytes):
            raise TypeError(f"a script's key cannot be a {type(part).__name__}")
        size += packed_size(<bytes>part)
    command = PyBytes_FromStringAndSize(NULL, size)
    target = write_length(PyBytes_AS_STRING(command), c'*', len(parts))
    for part in parts:
        target = write_part(target, <bytes>part)
    return command


def pack_strings(texts):
    """Return texts one after the other in UTF-8, each led by its length in one byte.

    A longer one is cut to as many whole characters as fit into 255 bytes.
    """
    cdef list encoded = []
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t length
    cdef bytes raw, packed
    cdef char* target
    for text in texts:
        raw = (<str?>text).encode()
        if PyBytes_GET_SIZE(raw) > TEXT_BYTES_MAX:
            raw = raw[:TEXT_BYTES_MAX].decode(errors="ignore").encode()
        encoded.append(raw)
        size += 1 + PyBytes_GET_SIZE(raw)
    packed = PyBytes_FromStringAndSize(NULL, size)
    target = PyBytes_AS_STRING(packed)
    for raw in encoded:
        length = PyBytes_GET_SIZE(raw)
        target[0] = <char>length
        memcpy(target + 1, PyBytes_AS_STRING(raw), length)
        target += 1 + length
    return packed
