"""What every decision puts together as bytes: the command with its parts, texts in records."""

from __future__ import annotations

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from authz_ext.texts cimport put_text, text_size

cdef extern from "<endian.h>" nogil:
    uint64_t be64toh(uint64_t raw)

cdef bytes EVALSHA = b"EVALSHA"
cdef const char* LINE_END = b"\r\n"


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


cdef inline char* write_bytes(char* target, const char* text, Py_ssize_t size) noexcept:
    """Write bytes as they are; return where the next byte goes."""
    memcpy(target, text, size)
    return target + size


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


cdef inline int check_bytes(part) except -1:
    if type(part) is not bytes:
        raise TypeError(f"a part of a prepared call cannot be a {type(part).__name__}")
    return 0


cdef bytes pack_parts(parts):
    """Return parts one after the other, each with its length; TypeError for what is not bytes."""
    cdef Py_ssize_t size = 0
    cdef bytes packed
    cdef char* target
    for part in parts:
        check_bytes(part)
        size += packed_size(<bytes>part)
    packed = PyBytes_FromStringAndSize(NULL, size)
    target = PyBytes_AS_STRING(packed)
    for part in parts:
        target = write_part(target, <bytes>part)
    return packed


cdef class PreparedCall:
    """A script about a call, prepared for a chain: most of a command is the same for all calls."""

    def __cinit__(self, script not None, bytes call_prefix not None, other_keys):
        cdef bytes sha1 = script.sha1.encode()
        self.script = script
        self.answers_integers = script.legs is not None
        self.call_prefix = call_prefix
        self.other_keys = tuple(other_keys)
        self._head = pack_parts((EVALSHA, sha1, str(1 + len(self.other_keys)).encode()))
        self._tail = pack_parts(self.other_keys)
        self._parts = 4 + len(self.other_keys)

    def keys(self, str call_id not None):
        """Return the script's keys for one call."""
        return [self.call_prefix + call_id.encode(), *self.other_keys]

    def pack(self, str call_id not None, list arguments not None):
        """Return the command for one call; arguments are bytes, TypeError for anything else."""
        return self.command(call_id, arguments)

    cdef bytes command(self, str call_id, list arguments):
        cdef Py_ssize_t id_size
        cdef const char* id_text = PyUnicode_AsUTF8AndSize(call_id, &id_size)
        cdef Py_ssize_t prefix_size = PyBytes_GET_SIZE(self.call_prefix)
        cdef Py_ssize_t key_size = prefix_size + id_size
        cdef Py_ssize_t head_size = PyBytes_GET_SIZE(self._head)
        cdef Py_ssize_t tail_size = PyBytes_GET_SIZE(self._tail)
        cdef Py_ssize_t parts = self._parts + len(arguments)
        cdef Py_ssize_t size = LENGTH_OVERHEAD + digits_of(parts) + head_size + tail_size
        cdef bytes packed
        cdef char* target
        size += LENGTH_OVERHEAD + digits_of(key_size) + key_size + PART_OVERHEAD
        for argument in arguments:
            check_bytes(argument)
            size += packed_size(<bytes>argument)
        packed = PyBytes_FromStringAndSize(NULL, size)
        target = write_length(PyBytes_AS_STRING(packed), c'*', parts)
        target = write_bytes(target, PyBytes_AS_STRING(self._head), head_size)
        target = write_length(target, c'$', key_size)
        target = write_bytes(target, PyBytes_AS_STRING(self.call_prefix), prefix_size)
        target = write_bytes(target, id_text, id_size)
        target = write_bytes(target, LINE_END, PART_OVERHEAD)
        target = write_bytes(target, PyBytes_AS_STRING(self._tail), tail_size)
        for argument in arguments:
            target = write_part(target, <bytes>argument)
        return packed


cpdef list unpack_integers(bytes packed):
    """Return the integers of a script's answer: of every eight bytes one, the high byte first.

    ValueError unless it is 1 to 17 of them.
    """
    if packed is None or not are_integers(len(packed)):
        raise ValueError("not a script's integers")
    return integers_at(PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed))


cdef list integers_at(const char* packed, Py_ssize_t size):
    cdef Py_ssize_t count = size // INTEGER_BYTES
    cdef Py_ssize_t place
    cdef list integers = PyList_New(count)
    cdef uint64_t raw
    cdef object integer
    for place in range(count):
        memcpy(&raw, packed + place * INTEGER_BYTES, INTEGER_BYTES)
        integer = <int64_t>be64toh(raw)
        Py_INCREF(integer)
        PyList_SET_ITEM(integers, place, integer)
    return integers


def pack_strings(texts):
    """Return texts one after the other in UTF-8, each led by its length in one byte.

    A longer one is cut to as many whole characters as fit into 255 bytes.
    """
    cdef Py_ssize_t size = 0
    cdef bytes packed
    cdef char* target
    texts = tuple(texts)
    for text in texts:
        size += 1 + text_size(<str?>text)
    packed = PyBytes_FromStringAndSize(NULL, size)
    target = PyBytes_AS_STRING(packed)
    for text in texts:
        target = put_text(target, <str>text)
    return packed
