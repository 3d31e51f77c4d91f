"""Entries of a ledger as rows of the archive: the ordinary ones, in their order."""

from __future__ import annotations

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_CheckExact
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memchr

cdef enum:
    # More of them would not fit.
    CLOCK_DIGITS_MAX = 15
    MICROS_PER_MILLISECOND = 1_000


cdef inline int64_t number_at(const unsigned char* record, Field field) noexcept:
    """Return a big-endian field of a record."""
    cdef unsigned long long value = 0
    cdef Py_ssize_t place
    for place in range(field.offset, field.offset + field.width):
        value = value << 8 | record[place]
    if field.is_signed and field.width < 8 and record[field.offset] & 0x80:
        value = value - (1ull << 8 * field.width)
    return <int64_t>value


cdef int64_t clock_of(bytes entry_id) noexcept:
    """Return the milliseconds with which an entry's id begins, or -1 if it does not."""
    cdef const char* text = PyBytes_AS_STRING(entry_id)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(entry_id)
    cdef Py_ssize_t place
    cdef int64_t clock = 0
    for place in range(min(length, CLOCK_DIGITS_MAX + 1)):
        if text[place] == c'-':
            return clock if place else -1
        if not c'0' <= text[place] <= c'9':
            return -1
        clock = 10 * clock + (text[place] - c'0')
    return -1


cdef inline Py_ssize_t find_texts(
    const unsigned char* data, Py_ssize_t position, Py_ssize_t end, Text* texts
) noexcept:
    """Enter the texts up to the end of a record; return how many, or -1 if they are not plain."""
    cdef Py_ssize_t count = 0
    while position < end:
        if count == TEXTS_MAX:
            return -1
        texts[count].length = data[position]
        texts[count].start = <const char*>data + position + 1
        position += 1 + texts[count].length
        if position > end or memchr(texts[count].start, 0, texts[count].length) != NULL:
            return -1
        count += 1
    return count


cdef inline str decode(Text text):
    return PyUnicode_DecodeUTF8(text.start, text.length, NULL)


cdef Field field_of(dict places, str name) except *:
    cdef Field field
    field.offset, field.width, field.is_signed = places[name]
    return field


cdef class MovementReader:
    """Reads entries packed by two layouts, whose places it is told."""

    def __init__(
        self,
        dict head not None,
        dict leg not None,
        *,
        Py_ssize_t head_size,
        Py_ssize_t leg_size,
        int64_t kinds,
        int64_t marks,
        int64_t classes,
        int64_t directions,
        int64_t billings,
        dict causes not None,
    ):
        self.head.kind = field_of(head, "kind")
        self.head.marks = field_of(head, "marks")
        self.head.call_class = field_of(head, "call_class")
        self.head.direction = field_of(head, "direction")
        self.head.legs = field_of(head, "legs")
        self.head.seconds = field_of(head, "seconds")
        self.head.sequence = field_of(head, "sequence")
        self.head.started_at = field_of(head, "started_at")
        self.leg.billing = field_of(leg, "billing")
        self.leg.sequence = field_of(leg, "sequence")
        self.leg.amount = field_of(leg, "amount")
        self.leg.balance = field_of(leg, "balance")
        self.head_size = head_size
        self.leg_size = leg_size
        self.kinds = kinds
        self.marks = marks
        self.classes = classes
        self.directions = directions
        self.billings = billings
        self.causes = causes

    def read(self, int bucket, list page not None, int64_t sequence):
        """Return the rows of a page's first entries, and how many entries those are."""
        cdef list rows = []
        cdef Py_ssize_t taken = 0
        for entry in page:
            if not self.append(rows, bucket, entry, sequence + taken):
                break
            taken += 1
        return rows, taken

    cdef bint append(self, list rows, int bucket, object entry, int64_t expected) except -1:
        """Append the rows of an entry and return True, or leave it."""
        cdef Text texts[TEXTS_MAX]
        cdef const unsigned char* data
        cdef Py_ssize_t size, legs, count, kept
        cdef int64_t clock_ms
        if not PyList_CheckExact(entry) or len(<list>entry) != 2:
            return False
        entry_id, fields = (<list>entry)[0], (<list>entry)[1]
        if not PyBytes_CheckExact(entry_id) or not PyList_CheckExact(fields):
            return False
        if len(<list>fields) < 2 or not PyBytes_CheckExact((<list>fields)[1]):
            return False
        clock_ms = clock_of(<bytes>entry_id)
        if clock_ms < 0:
            return False
        packed = (<list>fields)[1]
        data = <const unsigned char*>PyBytes_AS_STRING(packed)
        size = PyBytes_GET_SIZE(packed)
        if size < self.head_size or number_at(data, self.head.sequence) != expected:
            return False
        legs = number_at(data, self.head.legs)
        if not 1 <= legs <= LEGS_MAX or size < self.head_size + legs * self.leg_size:
            return False
        count = find_texts(data, self.head_size + legs * self.leg_size, size, texts)
        if count != legs + WORDS and count != legs + WORDS + 1:
            return False
        kept = len(rows)
        try:
            if self.append_legs(
                rows, bucket, data, texts, count, clock_ms * MICROS_PER_MILLISECOND
            ):
                return True
        except UnicodeDecodeError:
            pass
        del rows[kept:]
        return False

    cdef bint append_legs(
        self,
        list rows,
        int bucket,
        const unsigned char* data,
        const Text* texts,
        Py_ssize_t count,
        int64_t booked_us,
    ) except -1:
        """Append the rows; False: a code means nothing."""
        cdef const unsigned char* place = data + self.head_size
        cdef Py_ssize_t legs = number_at(data, self.head.legs)
        cdef int64_t kind = number_at(data, self.head.kind)
        cdef int64_t marks = number_at(data, self.head.marks)
        cdef int64_t call_class = number_at(data, self.head.call_class)
        cdef int64_t direction = number_at(data, self.head.direction)
        cdef int64_t billing
        cdef Py_ssize_t number
        if not 1 <= kind <= self.kinds or marks >= self.marks:
            return False
        if call_class >= self.classes or direction >= self.directions:
            return False
        booked = booked_us
        sequence = number_at(data, self.head.sequence)
        seconds = number_at(data, self.head.seconds)
        started_at = number_at(data, self.head.started_at)
        origin = decode(texts[0])
        reference = decode(texts[legs])
        called = decode(texts[legs + 1])
        description = decode(texts[legs + 2])
        if texts[legs + 2].length == 1:
            description = self.causes.get(description, description)
        refunded_call = decode(texts[legs + WORDS]) if count > legs + WORDS else ""
        for number in range(legs):
            billing = number_at(place, self.leg.billing)
            if billing >= self.billings:
                return False
            rows.append((
                bucket, sequence, number, origin if number == 0 else decode(texts[number]), origin,
                kind, marks, call_class, direction, billing, seconds, booked, started_at,
                number_at(place, self.leg.amount), number_at(place, self.leg.balance),
                number_at(place, self.leg.sequence),
                reference, called, description, refunded_call,
            ))
            place += self.leg_size
        return True
