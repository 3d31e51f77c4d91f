"""Counters, gauges and histograms of a process, in memory that another process may read.

A board is a row of signed 8-byte slots; an instrument adds to its own slots. At first the row is
private memory; `share` moves it, with what has been counted so far, into memory mapped by
whoever publishes the figures. Nothing is lost then when the process is killed, and a successor
that is given the same row goes on counting where it ended.

Every change is one atomic addition or store of the processor, so that two processes may use one
row for a moment (a reload starts the new process before the old one drains), and a reader never
sees half a number. Readers see slots of one histogram at slightly different moments, as ever.
"""

from __future__ import annotations

from cpython.buffer cimport PyBUF_CONTIG, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free

cdef extern from *:
    """
    #define SLOT_ADD(slot, amount) \
        ((void)__atomic_fetch_add((slot), (long long)(amount), __ATOMIC_RELAXED))
    #define SLOT_SET(slot, value) __atomic_store_n((slot), (long long)(value), __ATOMIC_RELAXED)
    #define SLOT_GET(slot) __atomic_load_n((slot), __ATOMIC_RELAXED)
    """
    void SLOT_ADD(long long* slot, long long amount) noexcept
    void SLOT_SET(long long* slot, long long value) noexcept
    long long SLOT_GET(long long* slot) noexcept

cdef enum:
    SLOT_BYTES = 8

#: Most bounds of a histogram.
HISTOGRAM_BOUNDS_MAX = BOUNDS_MAX


def now_ns():
    """Return the monotonic clock in nanoseconds: where `observe_since` counts from."""
    return monotonic_ns()


def now_us():
    """Return the same clock in whole microseconds."""
    return monotonic_ns() // 1_000


def now_ms():
    """Return the same clock in whole milliseconds."""
    return monotonic_ns() // 1_000_000


cdef class Board:
    """The slots of one process, all 0 at first."""

    def __cinit__(self, Py_ssize_t size):
        if size < 1:
            raise ValueError(f"a board needs a slot, got {size}")
        self.size = size
        self.slots = <long long*>calloc(size, SLOT_BYTES)
        if self.slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        self.let_go()

    cdef void let_go(self) noexcept:
        if self._is_shared:
            PyBuffer_Release(&self._shared)
        else:
            free(self.slots)
        self._is_shared = False
        self.slots = NULL

    def share(self, buffer not None):
        """Count in this writable memory from now on, on top of what it holds.

        Raises ValueError if it is not as long as the board, or does not begin at a multiple of 8.
        """
        cdef Py_buffer shared
        cdef Py_ssize_t slot
        cdef long long* slots
        PyObject_GetBuffer(buffer, &shared, PyBUF_CONTIG)
        if shared.len != self.size * SLOT_BYTES or <uintptr_t>shared.buf % SLOT_BYTES:
            PyBuffer_Release(&shared)
            raise ValueError(f"not {self.size} slots of {SLOT_BYTES} bytes each")
        slots = <long long*>shared.buf
        for slot in range(self.size):
            if self.slots[slot]:
                SLOT_ADD(slots + slot, self.slots[slot])
        self.let_go()
        self.slots = slots
        self._shared = shared
        self._is_shared = True

    def values(self):
        """Return the present values of all slots."""
        return [SLOT_GET(self.slots + slot) for slot in range(self.size)]

    def value(self, Py_ssize_t slot):
        """Return the present value of one slot."""
        self.check(slot, 1)
        return SLOT_GET(self.slots + slot)

    def check(self, Py_ssize_t slot, Py_ssize_t count):
        """Raise IndexError unless `count` slots from `slot` on are on the board."""
        if slot < 0 or count < 1 or slot > self.size - count:
            raise IndexError(f"slots {slot} to {slot + count - 1} of {self.size}")


cdef class Counter:
    """A number that only grows."""

    def __cinit__(self, Board board not None, Py_ssize_t slot):
        board.check(slot, 1)
        self._board = board
        self._slot = slot

    def add(self, long long amount=1):
        """Add an amount of at least 0; ValueError for less."""
        if amount < 0:
            raise ValueError(f"a counter never falls: {amount}")
        SLOT_ADD(self._board.slots + self._slot, amount)

    cdef void count_one(self) noexcept:
        SLOT_ADD(self._board.slots + self._slot, 1)

    @property
    def value(self):
        """What has been counted, also by predecessors on a shared board."""
        return SLOT_GET(self._board.slots + self._slot)


cdef class Gauge:
    """A number as it is now."""

    def __cinit__(self, Board board not None, Py_ssize_t slot):
        board.check(slot, 1)
        self._board = board
        self._slot = slot

    def set(self, long long value):
        """Take the present value."""
        SLOT_SET(self._board.slots + self._slot, value)

    @property
    def value(self):
        """The value taken last."""
        return SLOT_GET(self._board.slots + self._slot)


cdef class Histogram:
    """Counts of durations by size: one slot for each bound, one for what is above all, the sum."""

    def __cinit__(self, Board board not None, Py_ssize_t slot, bounds):
        """Use `len(bounds) + 2` slots from `slot` on; bounds are ascending nanoseconds."""
        cdef int index
        if not 0 < len(bounds) <= BOUNDS_MAX or list(bounds) != sorted(set(bounds)):
            raise ValueError(f"bounds must be 1 to {BOUNDS_MAX}, ascending")
        board.check(slot, len(bounds) + 2)
        self._board = board
        self._slot = slot
        self._bounds_count = len(bounds)
        for index in range(self._bounds_count):
            self._bounds[index] = bounds[index]

    def observe(self, long long value):
        """Count one duration in nanoseconds; a negative one counts as 0."""
        self.count(value)

    def observe_since(self, long long started_ns):
        """Count the time that has passed since `now_ns()` was `started_ns`."""
        self.count(monotonic_ns() - started_ns)

    cdef void count(self, long long value) noexcept:
        cdef int index = 0
        cdef long long* slots = self._board.slots + self._slot
        if value < 0:
            value = 0
        while index < self._bounds_count and value > self._bounds[index]:
            index += 1
        SLOT_ADD(slots + index, 1)
        SLOT_ADD(slots + self._bounds_count + 1, value)
