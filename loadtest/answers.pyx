"""Reads answers of the hook API: cuts what a connection sends, and finds what decides a call.

A decision is read from the bytes as the daemon nearly always writes them. Whatever is wrong or
merely unusual in a body is not judged here: it is left to a parser of all of JSON.
"""

from __future__ import annotations

from loadtest.errors import LoadTestError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* one, const char* other, size_t size)

cdef enum:
    #: What one read may bring at most.
    SPACE = 65_536
    #: More than any answer of the hook API; whoever sends more is not speaking it.
    ANSWER_BYTES_MAX = 1_048_576
    STATUS_LINE_BYTES_MIN = 12
    LENGTH_DIGITS_MAX = 7
    #: Nineteen may be more than 64 bits have room for.
    NUMBER_DIGITS_MAX = 18
    #: Deeper values are unusual.
    DEPTH_MAX = 8


cdef class AnswerReader:
    """Cuts what a connection sends into answers. They must carry a length (ours do)."""

    def __dealloc__(self):
        free(self._data)

    cdef char* space(self, Py_ssize_t* size) except NULL:
        """Return where to read to, and into `size` how much has room there."""
        cdef char* moved
        if self._begin:
            memmove(self._data, self._data + self._begin, self._end - self._begin)
            self._end -= self._begin
            self._begin = 0
        if self._room - self._end < SPACE:
            moved = <char*>realloc(self._data, self._end + 2 * SPACE)
            if moved == NULL:
                raise MemoryError
            self._data = moved
            self._room = self._end + 2 * SPACE
        size[0] = SPACE
        return self._data + self._end

    cdef void took(self, Py_ssize_t size) noexcept:
        """So much has been read to where `space` said."""
        self._end += size

    cdef int next(self, Answer* answer) except -1:
        """Cut the next answer; return 0 if none is there as a whole.

        Raises LoadTestError for what is no answer.
        """
        cdef const char* text = self._data + self._begin
        cdef Py_ssize_t size = self._end - self._begin
        if not self._head_bytes and not self.find_head(text, size):
            return 0
        if size < self._head_bytes + self._body_bytes:
            return 0
        answer.status = (text[9] - c'0') * 100 + (text[10] - c'0') * 10 + text[11] - c'0'
        answer.body = text + self._head_bytes
        answer.body_bytes = self._body_bytes
        self._begin += self._head_bytes + self._body_bytes
        self._head_bytes = 0
        return 1

    cdef int find_head(self, const char* text, Py_ssize_t size) except -1:
        """Say whether the head of the next answer is there; note its length and its body's."""
        cdef const char* end = find_head_end(text, text + size)
        cdef bint is_endless = end == NULL and size > ANSWER_BYTES_MAX
        if end != NULL:
            self._body_bytes = body_length(text, end)
            self._head_bytes = end + 4 - text
            is_endless = self._body_bytes > ANSWER_BYTES_MAX
        if is_endless:
            raise LoadTestError(f"an answer has no end after {ANSWER_BYTES_MAX} bytes")
        return end != NULL

    cdef void clear(self) noexcept:
        """Forget what was read: another connection begins."""
        self._begin = self._end = self._head_bytes = 0

    def feed(self, bytes data not None):
        """Read `data`; return (status, body) of every answer that is complete now.

        Raises LoadTestError for what is no answer.
        """
        cdef Py_ssize_t place = 0
        cdef Py_ssize_t size
        cdef char* into
        cdef Answer answer
        found = []
        while place < PyBytes_GET_SIZE(data):
            into = self.space(&size)
            size = min(size, PyBytes_GET_SIZE(data) - place)
            memcpy(into, PyBytes_AS_STRING(data) + place, size)
            self.took(size)
            place += size
            while self.next(&answer):
                body = PyBytes_FromStringAndSize(answer.body, answer.body_bytes)
                found.append((answer.status, body))
        return found


cdef const char* find_line_end(const char* text, const char* end) noexcept:
    """Return where the first line end of a text begins, or NULL if there is none."""
    cdef const char* newline = text
    while True:
        newline = <const char*>memchr(newline, c'\n', end - newline)
        if newline == NULL:
            return NULL
        if newline > text and (newline - 1)[0] == c'\r':
            return newline - 1
        newline += 1


cdef const char* find_head_end(const char* text, const char* end) noexcept:
    """Return where the two line ends begin that end a head, or NULL if it has not ended."""
    cdef const char* line_end = find_line_end(text, end)
    cdef const char* next_end
    while line_end != NULL:
        next_end = find_line_end(line_end + 2, end)
        if next_end == line_end + 2:
            return line_end
        line_end = next_end
    return NULL


cdef Py_ssize_t body_length(const char* head, const char* end) except -1:
    """Return the length that a head says, which ends at `end`; LoadTestError if it says none."""
    cdef const char* line
    cdef const char* line_end
    cdef const char* value
    cdef Py_ssize_t length = -1
    if not is_status_line(head, end - head):
        raise LoadTestError(f"this is no answer in HTTP/1: {head[:min(end - head, 40)]!r}")
    line = find_line_end(head, end + 2) + 2
    while line < end:
        line_end = find_line_end(line, end + 2)
        if strncasecmp(line, b"Content-Length:", 15) == 0:
            value = line + 15
            while value < line_end and value[0] == c' ':
                value += 1
            if length >= 0:
                raise LoadTestError(f"this answer has two lengths: {head[:end - head]!r}")
            length = read_length(value, line_end)
        elif strncasecmp(line, b"Transfer-Encoding:", 18) == 0:
            length = -1
            break
        line = line_end + 2
    if length < 0:
        raise LoadTestError(f"this answer has no Content-Length: {head[:min(end - head, 80)]!r}")
    return length


cdef bint is_status_line(const char* head, Py_ssize_t size) noexcept:
    """Return whether a head begins as `HTTP/1.1 200`, with any status of three digits."""
    cdef Py_ssize_t place
    if size < STATUS_LINE_BYTES_MIN or memcmp(head, b"HTTP/1.", 7) != 0 or head[8] != c' ':
        return False
    for place in range(9, 12):
        if not c'0' <= head[place] <= c'9':
            return False
    return size == STATUS_LINE_BYTES_MIN or head[12] == c' ' or head[12] == c'\r'


cdef Py_ssize_t read_length(const char* digits, const char* end) noexcept:
    """Return the number that these digits are, or -1 if they are anything else."""
    cdef Py_ssize_t number = 0
    if not 1 <= end - digits <= LENGTH_DIGITS_MAX:
        return -1
    while digits < end:
        if not c'0' <= digits[0] <= c'9':
            return -1
        number = 10 * number + digits[0] - c'0'
        digits += 1
    return number


# Bodies. Every function below takes where a value begins and returns where it ends, or NULL if it
# is not written as usual: as JSON without spaces, escapes, fractions, or letters beyond ASCII.


#: Bytes that may stand in a string, and change nothing there.
cdef bint IS_PLAIN[256]


cdef void fill_plain() noexcept:
    cdef int byte
    for byte in range(256):
        IS_PLAIN[byte] = 0x20 <= byte <= 0x7E and byte != c'"' and byte != c'\\'


fill_plain()

cdef enum:
    ALLOWED = 1
    REASON = 2
    SECONDS = 4
    EXTEND_AT = 8


cdef bint scan_decision(const char* body, Py_ssize_t size, Decision* decision) noexcept:
    """Read a decision; return False, with nothing decided, if the body is unusual."""
    cdef const char* end = body + size
    cdef int seen = 0
    decision.allowed = False
    decision.reason = b"no reason"
    decision.reason_bytes = 9
    decision.seconds = -1
    decision.extend_at = 0
    return scan_members(body, end, decision, &seen) == end


cdef const char* scan_members(
    const char* text, const char* end, Decision* decision, int* seen
) noexcept:
    """Read an object that is a decision."""
    cdef const char* name
    cdef const char* value
    cdef int member
    if end - text < 2 or text[0] != c'{':
        return NULL
    if text[1] == c'}':
        return text + 2
    while True:
        name = text + 1
        value = skip_string(name, end)
        if value == NULL or value == end or value[0] != c':':
            return NULL
        member = member_named(name + 1, value - name - 2)
        if seen[0] & member:
            return NULL
        seen[0] |= member
        value += 1
        text = scan_member(member, value, end, decision) if member else skip_value(value, end, 1)
        if text == NULL or text == end:
            return NULL
        if text[0] == c'}':
            return text + 1
        if text[0] != c',':
            return NULL


cdef int member_named(const char* name, Py_ssize_t size) noexcept:
    if size == 7 and memcmp(name, b"allowed", 7) == 0:
        return ALLOWED
    if size == 6 and memcmp(name, b"reason", 6) == 0:
        return REASON
    if size == 7 and memcmp(name, b"seconds", 7) == 0:
        return SECONDS
    if size == 9 and memcmp(name, b"extend_at", 9) == 0:
        return EXTEND_AT
    return 0


cdef const char* scan_member(
    int member, const char* text, const char* end, Decision* decision
) noexcept:
    cdef const char* value_end
    if member == ALLOWED:
        decision.allowed = text < end and text[0] == c't'
        return skip_word(text, end, b"true", 4) if decision.allowed else skip_word(
            text, end, b"false", 5
        )
    if member == REASON:
        value_end = skip_string(text, end)
        if value_end != NULL:
            decision.reason = text + 1
            decision.reason_bytes = value_end - text - 2
        return value_end
    if member == SECONDS and text < end and text[0] == c'n':
        return skip_word(text, end, b"null", 4)
    return scan_number(
        text, end, &decision.seconds if member == SECONDS else &decision.extend_at
    )


cdef const char* scan_number(const char* text, const char* end, int64_t* number) noexcept:
    """Read a whole number of at least 0."""
    cdef const char* begin = text
    cdef int64_t value = 0
    while text < end and c'0' <= text[0] <= c'9':
        value = 10 * value + text[0] - c'0'
        text += 1
        if text - begin > NUMBER_DIGITS_MAX:
            return NULL
    if text == begin or (begin[0] == c'0' and text - begin > 1) or not is_end(text, end):
        return NULL
    number[0] = value
    return text


cdef inline bint is_end(const char* text, const char* end) noexcept:
    """Return whether a number or word may end here."""
    return text < end and (text[0] == c',' or text[0] == c'}' or text[0] == c']')


cdef const char* skip_word(
    const char* text, const char* end, const char* word, Py_ssize_t size
) noexcept:
    if end - text < size or memcmp(text, word, size) != 0:
        return NULL
    return text + size


cdef const char* skip_string(const char* text, const char* end) noexcept:
    if text >= end or text[0] != c'"':
        return NULL
    text += 1
    while text < end and IS_PLAIN[<unsigned char>text[0]]:
        text += 1
    return text + 1 if text < end and text[0] == c'"' else NULL


cdef const char* skip_value(const char* text, const char* end, int depth) noexcept:
    cdef int64_t number
    if text >= end:
        return NULL
    if text[0] == c'"':
        return skip_string(text, end)
    if text[0] == c'{' or text[0] == c'[':
        return skip_container(text, end, depth)
    if text[0] == c't':
        return skip_word(text, end, b"true", 4)
    if text[0] == c'f':
        return skip_word(text, end, b"false", 5)
    if text[0] == c'n':
        return skip_word(text, end, b"null", 4)
    return scan_number(text, end, &number)


cdef const char* skip_container(const char* text, const char* end, int depth) noexcept:
    """Skip an object or an array."""
    cdef bint is_object = text[0] == c'{'
    cdef char last = c'}' if is_object else c']'
    if depth > DEPTH_MAX:
        return NULL
    if end - text >= 2 and text[1] == last:
        return text + 2
    while True:
        text += 1
        if is_object:
            text = skip_string(text, end)
            if text == NULL or text == end or text[0] != c':':
                return NULL
            text += 1
        text = skip_value(text, end, depth + 1)
        if text == NULL or text == end:
            return NULL
        if text[0] == last:
            return text + 1
        if text[0] != c',':
            return NULL


def scan(bytes body not None):
    """Return (allowed, reason, seconds, extend_at) of a decision; None if the body is unusual."""
    cdef Decision decision
    if not scan_decision(PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body), &decision):
        return None
    reason = PyBytes_FromStringAndSize(decision.reason, decision.reason_bytes).decode()
    seconds = None if decision.seconds < 0 else decision.seconds
    return bool(decision.allowed), reason, seconds, decision.extend_at
