"""What is due when: a binary heap of moments, the earliest first."""

from __future__ import annotations

from libc.stdint cimport INT64_MAX, int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, realloc

cdef enum:
    ROOM_FIRST = 1024


cdef inline bint is_before(Plan* one, Plan* other) noexcept:
    if one.due_ns != other.due_ns:
        return one.due_ns < other.due_ns
    return one.number < other.number


cdef class Agenda:
    """Plans, each with the moment at which it is due."""

    def __dealloc__(self):
        free(self._plans)

    def __len__(self):
        return self.count

    cdef int add(self, int64_t due_ns, int operation, uintptr_t subject) except -1:
        cdef Plan plan
        cdef Py_ssize_t place = self.count
        cdef Py_ssize_t parent
        if place == self._room:
            self.grow()
        plan.due_ns = due_ns
        plan.number = self._made
        plan.subject = subject
        plan.operation = operation
        self._made += 1
        self.count += 1
        while place > 0:
            parent = (place - 1) >> 1
            if not is_before(&plan, &self._plans[parent]):
                break
            self._plans[place] = self._plans[parent]
            place = parent
        self._plans[place] = plan
        return 0

    cdef grow(self):
        cdef Py_ssize_t room = max(2 * self._room, ROOM_FIRST)
        cdef Plan* moved = <Plan*>realloc(self._plans, room * sizeof(Plan))
        if moved == NULL:
            raise MemoryError
        self._plans = moved
        self._room = room

    cdef int64_t due_ns(self) noexcept:
        """Return when the next is due; the end of all time if there is none."""
        return self._plans[0].due_ns if self.count else INT64_MAX

    cdef Plan take(self) noexcept:
        """Take the earliest out; there must be one."""
        cdef Plan first = self._plans[0]
        cdef Plan last
        cdef Py_ssize_t place = 0
        cdef Py_ssize_t child = 1
        self.count -= 1
        last = self._plans[self.count]
        while child < self.count:
            if child + 1 < self.count and is_before(
                &self._plans[child + 1], &self._plans[child]
            ):
                child += 1
            if not is_before(&self._plans[child], &last):
                break
            self._plans[place] = self._plans[child]
            place = child
            child = 2 * place + 1
        self._plans[place] = last
        return first

    def push(self, due_ns, operation, subject):
        """Plan an operation for a moment; `subject` is a number of the caller's own."""
        self.add(due_ns, operation, subject)

    def pop(self):
        """Return the earliest plan as (due_ns, operation, subject); IndexError if there is none."""
        if not self.count:
            raise IndexError("nothing is planned")
        cdef Plan plan = self.take()
        return plan.due_ns, plan.operation, plan.subject
