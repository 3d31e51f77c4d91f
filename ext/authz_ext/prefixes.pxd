"""Layout of a prefix table: one hash table for all lengths, flat in one buffer.

A prefix of up to 16 symbols packs into 64 bits, four bits a symbol from the top: cutting a
number down to its first n symbols is one mask. The buffer holds a header, the heads and the
slots. A head says for the first symbols of a number which lengths of prefixes exist under it;
the slots of just these lengths are prefetched together, so that a lookup in a table beyond the
processor's caches waits about once for memory. (A trie of one node per symbol, measured first,
waits once per symbol: three times as long.)
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef struct header_t:
    char magic[8]
    uint64_t length
    # CRC-32 of everything behind the header.
    uint32_t checksum
    uint32_t head_symbols
    uint32_t slot_count
    uint32_t prefix_count


# 12 bytes without a gap; a key of 0 is an empty slot.
cdef struct slot_t:
    uint32_t key_high
    uint32_t key_low
    uint32_t value


# One prefix of a number: how many symbols it has, and its value.
cdef struct match_t:
    uint32_t length
    uint32_t value


# One row of a compiled deck, 32 bytes; authz.rating.compiled writes it.
cdef struct row_t:
    # In force from `effective` up to, not including, `expires`; Unix seconds.
    int64_t effective
    int64_t expires
    uint32_t rate
    uint32_t text
    # Bit d: serves direction d. Bit 7: the last row of its prefix.
    uint8_t flags
    uint8_t call_class
    uint8_t symbols
    uint8_t[5] reserved


cdef class PrefixTable:
    cdef const unsigned char[::1] _buffer
    # Bit n - 1 of a head: prefixes of n symbols exist under it.
    cdef const uint16_t* _heads
    cdef const slot_t* _slots
    cdef uint32_t _slot_count
    cdef uint32_t _prefix_count
    cdef int _head_shift

    cdef int _check(self, const unsigned char[::1] buffer) except -1
    cdef int walk(self, uint64_t key, unsigned int lengths, match_t* matches,
                  int limit) noexcept
    cdef unsigned int lengths_of(self, str number, uint64_t* key) noexcept


cdef class RowTable:
    cdef PrefixTable _table
    cdef const unsigned char[::1] _buffer
    cdef const row_t* _rows
    cdef uint32_t _row_count

    cdef long long in_force(self, uint32_t row, unsigned int flag, int64_t at) except -2
