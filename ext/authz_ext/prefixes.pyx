"""Longest-prefix table over one read-only buffer (a mapped file or bytes).

The layout, and why it is one hash table, is in prefixes.pxd.
"""

from __future__ import annotations

import zlib

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from *:
    int __builtin_clz(unsigned int bits) noexcept nogil
    void __builtin_prefetch(const void* address) noexcept nogil
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const unsigned char* PyUnicode_1BYTE_DATA(object text)

cdef enum:
    LENGTH_MAX = 16
    COUNT_MAX = 16_000_000
    # Half of the slots stay empty, so that a probe seldom leaves its cache line.
    SLOTS_PER_PREFIX = 2
    # Slots behind those that keys hash to: a search runs forward and never wraps around, and
    # the last slot is empty, so that it ends.
    SPARE_SLOTS = 1_024
    FLAG_LAST = 128
    # A table of many prefixes tells lengths apart by four symbols (128 KiB), another by three.
    MANY_PREFIXES = 20_000

PREFIX_LENGTH_MAX = LENGTH_MAX
PREFIXES_MAX = COUNT_MAX
ROW_BYTES = sizeof(row_t)
ROW_FLAG_LAST = FLAG_LAST

cdef bytes MAGIC = b"AUTHZPT1"

# Code of each byte in a key: `#` 1, `*` 2, the digits 3 to 12, anything else 0.
cdef uint8_t[256] CODE_OF


cdef void _assign_codes() noexcept:
    cdef const char* symbols = b"#*0123456789"
    cdef int index
    memset(CODE_OF, 0, sizeof(CODE_OF))
    for index in range(12):
        CODE_OF[<unsigned char>symbols[index]] = <uint8_t>(index + 1)


_assign_codes()


cdef inline uint64_t _first_symbols(uint64_t key, int length) noexcept nogil:
    return key & (~<uint64_t>0 << (4 * (LENGTH_MAX - length)))


cdef inline uint32_t _slot_of(uint64_t key, uint32_t slot_count) noexcept nogil:
    # The short prefixes' digits are all in the upper half: fold it in before mixing.
    key = (key ^ (key >> 32)) * 0x9E3779B97F4A7C15ULL
    key = (key ^ (key >> 29)) * 0xBF58476D1CE4E5B9ULL
    return <uint32_t>(((key >> 32) * (slot_count - SPARE_SLOTS)) >> 32)


cdef uint64_t _key_of_prefix(str prefix) except 0:
    """Return the key of one prefix; ValueError unless it is 1 to 16 of 0-9, `*` and `#`."""
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(prefix)
    cdef Py_ssize_t position
    cdef const unsigned char* text
    cdef uint64_t key = 0
    if not 1 <= length <= LENGTH_MAX or not PyUnicode_IS_COMPACT_ASCII(prefix):
        raise ValueError(f"prefix {prefix[:40]!r} is not 1 to {LENGTH_MAX} of 0-9, * and #")
    text = PyUnicode_1BYTE_DATA(prefix)
    for position in range(length):
        if CODE_OF[text[position]] == 0:
            raise ValueError(f"prefix {prefix!r} has other symbols than 0-9, * and #")
        key |= <uint64_t>CODE_OF[text[position]] << (4 * (LENGTH_MAX - 1 - position))
    return key


cdef bint _insert(slot_t* slots, uint32_t slot_count, uint64_t key, uint32_t value) except -1:
    """Write one prefix into the first free slot from its own on; false if it is there."""
    cdef uint32_t index = _slot_of(key, slot_count)
    cdef uint32_t high = <uint32_t>(key >> 32)
    cdef uint32_t low = <uint32_t>key
    while slots[index].key_high != 0:
        if slots[index].key_high == high and slots[index].key_low == low:
            return False
        index += 1
    if index + 1 >= slot_count:
        raise ValueError("more prefixes collide than the table has room for")
    slots[index].key_high = high
    slots[index].key_low = low
    slots[index].value = value
    return True


cdef void _mark_heads(uint16_t* heads, int head_shift, uint64_t key, int length) noexcept:
    """Note under each head that a prefix of `length` symbols may match there."""
    cdef uint64_t index = key >> head_shift
    cdef uint64_t last = (key | (~_first_symbols(~<uint64_t>0, length))) >> head_shift
    while index <= last:
        heads[index] |= <uint16_t>(1 << (length - 1))
        index += 1


def build(prefixes, values=None):
    """Return the table of `prefixes`, each 1 to 16 of `0123456789*#`, in any order.

    A prefix's value (0 to 4,294,967,295) is its index unless `values` names another. Raises
    ValueError for a prefix that is malformed or repeated.
    """
    cdef Py_ssize_t count = len(prefixes)
    cdef header_t header
    cdef Py_ssize_t head_bytes
    cdef uint16_t* heads
    cdef slot_t* slots
    cdef uint64_t key
    cdef int head_shift
    cdef uint32_t row = 0
    if count > COUNT_MAX:
        raise ValueError(f"{count} prefixes are more than {COUNT_MAX}")
    if values is not None and len(values) != count:
        raise ValueError("there must be one value for each prefix")
    memset(&header, 0, sizeof(header_t))
    header.head_symbols = 4 if count >= MANY_PREFIXES else 3
    header.slot_count = <uint32_t>max(count, 1) * SLOTS_PER_PREFIX + SPARE_SLOTS
    header.prefix_count = <uint32_t>count
    head_shift = 64 - 4 * header.head_symbols
    head_bytes = sizeof(uint16_t) << (4 * header.head_symbols)
    header.length = sizeof(header_t) + head_bytes + header.slot_count * sizeof(slot_t)
    cdef bytes table = PyBytes_FromStringAndSize(NULL, header.length)
    cdef char* target = PyBytes_AS_STRING(table)
    memset(target, 0, header.length)
    heads = <uint16_t*>(target + sizeof(header_t))
    slots = <slot_t*>(target + sizeof(header_t) + head_bytes)
    for prefix in prefixes:
        key = _key_of_prefix(prefix)
        if not _insert(slots, header.slot_count, key, row if values is None else values[row]):
            raise ValueError(f"prefix {prefix!r} is repeated")
        _mark_heads(heads, head_shift, key, len(prefix))
        row += 1
    memcpy(header.magic, <const char*>MAGIC, 8)
    header.checksum = zlib.crc32(memoryview(table)[sizeof(header_t):])
    memcpy(target, &header, sizeof(header_t))
    return table


cdef class PrefixTable:
    """The prefixes of one buffer from `build`; reads it in place and never copies it.

    Raises ValueError unless the buffer is whole: magic, length and checksum are right.
    """

    def __cinit__(self, buffer):
        cdef const unsigned char[::1] view = buffer
        self._check(view)
        self._buffer = view

    cdef int _check(self, const unsigned char[::1] buffer) except -1:
        cdef header_t header
        cdef uint64_t head_bytes
        cdef const char* start
        if buffer.shape[0] < <Py_ssize_t>sizeof(header_t):
            raise ValueError("the prefix table is cut short")
        memcpy(&header, &buffer[0], sizeof(header_t))
        if memcmp(header.magic, <const char*>MAGIC, 8) != 0:
            raise ValueError("this is no prefix table, or one of another layout")
        if not 1 <= header.head_symbols <= 4:
            raise ValueError("the prefix table is damaged: its heads have no known length")
        head_bytes = sizeof(uint16_t) << (4 * header.head_symbols)
        if (header.length != <uint64_t>buffer.shape[0]
                or header.length != sizeof(header_t) + head_bytes
                + header.slot_count * sizeof(slot_t)):
            raise ValueError("the prefix table is not as long as it says")
        if <size_t>&buffer[0] % sizeof(uint32_t) != 0:
            raise ValueError("the prefix table does not begin on a multiple of 4 bytes")
        if zlib.crc32(memoryview(buffer)[sizeof(header_t):]) != header.checksum:
            raise ValueError("the prefix table is damaged: its checksum is wrong")
        start = <const char*>&buffer[0]
        self._heads = <const uint16_t*>(start + sizeof(header_t))
        self._slots = <const slot_t*>(start + sizeof(header_t) + head_bytes)
        if (header.slot_count <= SPARE_SLOTS
                or self._slots[header.slot_count - 1].key_high != 0):
            raise ValueError("the prefix table is damaged: its last slot is not empty")
        self._slot_count = header.slot_count
        self._prefix_count = header.prefix_count
        self._head_shift = 64 - 4 * header.head_symbols
        return 0

    def __len__(self):
        return self._prefix_count

    @property
    def nbytes(self):
        """Bytes of the buffer, values included."""
        return self._buffer.shape[0]

    cdef unsigned int lengths_of(self, str number, uint64_t* key) noexcept:
        """Pack a number into `key`; return as bits which lengths of it may be prefixes."""
        cdef Py_ssize_t length = PyUnicode_GET_LENGTH(number)
        cdef Py_ssize_t position
        cdef const unsigned char* text
        cdef uint64_t packed = 0
        cdef uint64_t code
        cdef bint whole = False
        if length == 0 or not PyUnicode_IS_COMPACT_ASCII(number):
            return 0
        text = PyUnicode_1BYTE_DATA(number)
        if text[0] == c"+":
            text += 1
            length -= 1
        else:
            whole = text[0] != c"*" and text[0] != c"#"
        position = 0
        while position < length and position < LENGTH_MAX:
            code = CODE_OF[text[position]]
            if code == 0:
                break
            packed |= code << (4 * (LENGTH_MAX - 1 - position))
            position += 1
        key[0] = packed
        if position == 0 or (whole and position < length):
            return 0
        if whole:
            return self._heads[packed >> self._head_shift] & (1u << (position - 1))
        return self._heads[packed >> self._head_shift] & ((1u << position) - 1)

    cdef int walk(self, uint64_t key, unsigned int lengths, match_t* matches,
                  int limit) noexcept:
        """Write the prefixes of a packed number, longest first, at most `limit`; return how many.

        `lengths` has bit n - 1 set for each number of symbols n that is worth a probe.
        """
        cdef uint64_t[LENGTH_MAX] keys
        cdef uint32_t[LENGTH_MAX] indexes
        cdef uint32_t[LENGTH_MAX] symbols
        cdef int probes = 0
        cdef int probe
        cdef int count = 0
        cdef int length
        cdef const slot_t* slot
        while lengths:
            length = 32 - __builtin_clz(lengths)
            lengths ^= 1u << (length - 1)
            keys[probes] = _first_symbols(key, length)
            indexes[probes] = _slot_of(keys[probes], self._slot_count)
            symbols[probes] = length
            __builtin_prefetch(&self._slots[indexes[probes]])
            probes += 1
        for probe in range(probes):
            slot = &self._slots[indexes[probe]]
            while slot.key_high != 0:
                if (slot.key_high == <uint32_t>(keys[probe] >> 32)
                        and slot.key_low == <uint32_t>keys[probe]):
                    matches[count].length = symbols[probe]
                    matches[count].value = slot.value
                    count += 1
                    break
                slot += 1
            if count == limit:
                break
        return count

    def find(self, str number not None):
        """Return the value of the longest prefix of `number`, or -1.

        A number with a leading `+` and a service code (leading `*` or `#`) match by prefix.
        Anything else is no E.164 number (`911`, an internal extension): only a prefix equal to
        the whole of it matches, so that 911 never takes a price of India.
        """
        cdef match_t match
        cdef uint64_t key
        cdef unsigned int lengths = self.lengths_of(number, &key)
        if lengths == 0 or self.walk(key, lengths, &match, 1) == 0:
            return -1
        return match.value

    def matches(self, str number not None):
        """Return (symbols, value) of every prefix that `find` may name, longest first."""
        cdef match_t[LENGTH_MAX] matches
        cdef uint64_t key
        cdef unsigned int lengths = self.lengths_of(number, &key)
        cdef int count = self.walk(key, lengths, matches, LENGTH_MAX)
        return [(matches[index].length, matches[index].value) for index in range(count)]


cdef class RowTable:
    """The rows of a compiled deck behind its prefixes: which of them holds for a number now.

    A prefix's value is the index of its first row; of several, the one that takes effect last
    stands first. A row is 32 bytes, as prefixes.pxd says. Raises ValueError for a buffer that is
    no whole number of rows.
    """

    def __cinit__(self, PrefixTable table not None, rows):
        cdef const unsigned char[::1] view = rows
        if view.shape[0] % <Py_ssize_t>sizeof(row_t) != 0:
            raise ValueError("the rows are cut short")
        self._table = table
        self._buffer = view
        self._row_count = <uint32_t>(view.shape[0] // <Py_ssize_t>sizeof(row_t))
        if self._row_count:
            if <size_t>&view[0] % sizeof(int64_t) != 0:
                raise ValueError("the rows do not begin on a multiple of 8 bytes")
            self._rows = <const row_t*>&view[0]

    def __len__(self):
        return self._row_count

    cdef long long in_force(self, uint32_t row, unsigned int flag, int64_t at) except -2:
        """Return the first row from `row` on, of the same prefix, that holds; -1 if none does."""
        cdef const row_t* candidate
        while True:
            if row >= self._row_count:
                raise ValueError("the deck is damaged: a prefix has a row outside of it")
            candidate = &self._rows[row]
            if candidate.flags & flag and candidate.effective <= at < candidate.expires:
                return row
            if candidate.flags & FLAG_LAST:
                return -1
            row += 1

    def find(self, str number not None, int direction, int64_t at):
        """Return the index of the row in force at Unix second `at`, or -1.

        It is the first row in force, for that direction (0 or 1), of the longest prefix of
        `number` that has one.
        """
        cdef match_t[LENGTH_MAX] matches
        cdef uint64_t key
        cdef unsigned int flag = 1u << (direction & 1)
        cdef unsigned int lengths = self._table.lengths_of(number, &key)
        cdef long long row
        cdef int index
        cdef int count
        if lengths == 0 or self._table.walk(key, lengths, matches, 1) == 0:
            return -1
        row = self.in_force(matches[0].value, flag, at)
        if row >= 0:
            return row
        count = self._table.walk(key, lengths, matches, LENGTH_MAX)
        for index in range(1, count):
            row = self.in_force(matches[index].value, flag, at)
            if row >= 0:
                return row
        return -1
