"""Places calls when they are due, whatever the server does meanwhile, and leads each to its end.

It is the switch of a load test and its event loop in one: whatever happens is either the moment of
the next plan, told by a timer of the kernel, or something on a connection. In between it sleeps.
A latency counts from the moment at which a request was due to the one at which its answer has been
read; how late the request itself left is noted beside it.
"""

from __future__ import annotations

from array import array

from loadtest.errors import LoadTestError
from loadtest.plan import ERROR_PREFIX
from loadtest.wire import failure, read_decision

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EINTR
from libc.errno cimport errno as error_number
from libc.stdint cimport INT64_MAX, int64_t, uintptr_t
from libc.stdlib cimport calloc, free, realloc
from posix.unistd cimport close

from loadtest.agenda cimport Agenda, Plan
from loadtest.alarm cimport Alarm
from loadtest.answers cimport Answer, Decision, scan_decision
from loadtest.clock cimport monotonic_ns
from loadtest.drafts cimport AUTHORIZE, EMERGENCY, RESERVE, SETTLE, Draft, Drafts
from loadtest.epoll cimport (
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
)
from loadtest.line cimport CLOSED, CONNECTING, OPEN, Call, Line, Sent
from loadtest.recorder cimport Recorder

cdef enum:
    RING_SECONDS = 20
    #: A settle that the server was too busy for is repeated after its Retry-After, so often at most.
    SETTLE_ATTEMPTS_MAX = 10
    RETRY_NS = 1_000_000_000
    AGAIN_NS = 100_000_000
    #: At the end of the load the parent looks how much CPU time its processes have used.
    LINGER_NS = 200_000_000
    CALLS_IN_A_BLOCK = 1024
    EVENTS_MAX = 64
    #: What epoll tells of: lines by their number, the alarm, and other descriptors above it.
    ALARM = 1_000_000
    WATCHED = 2_000_000
    #: The outcome of a request that did what was asked.
    OK = 0
    #: Status of a request that got no answer because its connection was lost.
    LOST = 0


cdef class Caller:
    """Places calls on its lines and leads each through its life."""

    def __cinit__(
        self, Drafts drafts not None, Recorder recorder not None, target, *, int lines,
        double ns_per_call_second, bint is_closed_loop,
    ):
        self._epoll = -1
        self._drafts = drafts
        self._recorder = recorder
        self._agenda = Agenda()
        self._alarm = Alarm()
        self._target = target
        self._watched = {}
        self._arrivals = array("q")
        self._ns_per_call_second = ns_per_call_second
        self._is_closed_loop = is_closed_loop
        self._again_ns = INT64_MAX
        self._unflushed = <int*>calloc(lines, sizeof(int))
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._unflushed == NULL:
            raise MemoryError
        if self._epoll < 0:
            PyErr_SetFromErrno(OSError)
        self._lines = [Line(self._epoll, number) for number in range(lines)]
        self.tell_epoll(EPOLL_CTL_ADD, self._alarm.fileno(), EPOLLIN, ALARM)

    def __dealloc__(self):
        cdef Py_ssize_t place
        for place in range(self._blocks_count):
            free(self._blocks[place])
        free(self._blocks)
        free(self._unflushed)
        if self._epoll >= 0:
            close(self._epoll)

    cdef int tell_epoll(self, int how, int descriptor, unsigned int events, int name) except -1:
        cdef epoll_event event
        event.events = events
        event.data.u32 = name
        if epoll_ctl(self._epoll, how, descriptor, &event) < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    # What whoever runs it calls.

    @property
    def in_flight(self):
        """How many requests wait for their answers."""
        return sum([(<Line>line).in_flight for line in self._lines])

    @property
    def calls(self):
        """How many calls live now."""
        return self._calls

    @property
    def has_ended(self):
        """Whether all calls have ended, or the time for that has."""
        return self._has_ended

    def open(self):
        """Connect all lines; OSError if nobody listens."""
        for line in self._lines:
            (<Line>line).open(self._target)

    def begin(self, const int64_t[::1] arrivals_ns, int64_t end_ns, int64_t deadline_ns,
              int64_t start_ns, int calls_in_flight):
        """Set what `run` does."""
        self._arrivals = arrivals_ns
        self._end_ns = end_ns
        self._deadline_ns = deadline_ns
        for _ in range(calls_in_flight):
            self._agenda.add(start_ns, AUTHORIZE, 0)

    def watch(self, int descriptor, unsigned int events):
        """Let `run` return for these of epoll's events there, besides errors and hang-ups."""
        how = EPOLL_CTL_MOD if descriptor in self._watched else EPOLL_CTL_ADD
        if self._watched.get(descriptor) != events:
            self.tell_epoll(how, descriptor, events, WATCHED + descriptor)
            self._watched[descriptor] = events

    def run(self, int64_t until_ns):
        """Place calls until that moment, the end, or until something watched has happened.

        Returns (descriptor, events) of what was watched.
        """
        cdef epoll_event events[EVENTS_MAX]
        cdef int count, place
        cdef int64_t now_ns
        happened = []
        while not happened:
            now_ns = monotonic_ns()
            self.ask_due(now_ns)
            if self.is_over(now_ns):
                self._has_ended = True
                break
            if now_ns >= until_ns:
                break
            self._alarm.set(min(self.next_ns(), until_ns))
            with nogil:
                count = epoll_wait(self._epoll, events, EVENTS_MAX, -1)
            if count < 0:
                if error_number != EINTR:
                    PyErr_SetFromErrno(OSError)
                PyErr_CheckSignals()
            for place in range(count):
                if events[place].data.u32 < ALARM:
                    self.hear(self._lines[events[place].data.u32], events[place].events)
                elif events[place].data.u32 >= WATCHED:
                    happened.append((events[place].data.u32 - WATCHED, events[place].events))
        return happened

    def close(self):
        """End at once; what has no answer by now counts as such."""
        cdef int64_t now_ns = monotonic_ns()
        cdef int outcome
        cdef Line line
        cdef Sent sent
        self._has_ended = True
        for line in self._lines:
            while line.in_flight:
                outcome = self._recorder.number(f"{ERROR_PREFIX}unanswered")
                sent = line.take()
                self.note(&sent, outcome, now_ns)
            line.lose()

    # What is due.

    cdef int64_t next_ns(self) noexcept:
        """Return the moment at which something is to be done next."""
        cdef int64_t due_ns = min(self._deadline_ns, self._agenda.due_ns(), self._again_ns)
        if self._arrived < self._arrivals.shape[0]:
            return min(due_ns, self._arrivals[self._arrived])
        if not self._calls and not self._agenda.count:
            # Nothing is left to do.
            due_ns = min(due_ns, self._end_ns + LINGER_NS)
        return due_ns

    cdef bint is_over(self, int64_t now_ns) noexcept:
        """Say whether all has been done, or the time for it is up."""
        if now_ns >= self._deadline_ns:
            return True
        if self._calls or self._agenda.count or self._arrived < self._arrivals.shape[0]:
            return False
        return now_ns >= self._end_ns + LINGER_NS

    cdef int ask_due(self, int64_t now_ns) except -1:
        """Ask all that is due by now; what leaves on one line leaves in one write."""
        cdef Plan plan
        cdef int place
        while self._arrived < self._arrivals.shape[0]:
            if self._arrivals[self._arrived] > now_ns:
                break
            self.place_call(self._arrivals[self._arrived], now_ns)
            self._arrived += 1
        while self._agenda.due_ns() <= now_ns:
            plan = self._agenda.take()
            if plan.subject:
                self.ask(plan.operation, <Call*>plan.subject, plan.due_ns, now_ns)
            else:
                self.place_call(plan.due_ns, now_ns)
        for place in range(self._unflushed_count):
            (<Line>self._lines[self._unflushed[place]]).flush()
        self._unflushed_count = 0
        if self._again_ns <= now_ns:
            self.connect_again(now_ns)
        return 0

    cdef int place_call(self, int64_t due_ns, int64_t now_ns) except -1:
        cdef Call* call = self.new_call()
        self._placed += 1
        call.number = self._placed
        call.draft = self._drafts.draft(call.number)
        call.begun_ns = due_ns
        call.line = (call.number - 1) % <int>len(self._lines)
        call.talk_seconds = call.draft.talk_seconds
        call.used_seconds = call.attempts = 0
        self._calls += 1
        return self.ask(EMERGENCY if call.draft.emergency else AUTHORIZE, call, due_ns, now_ns)

    cdef int ask(self, int operation, Call* call, int64_t due_ns, int64_t now_ns) except -1:
        cdef Line line = self._lines[call.line]
        cdef Sent sent
        cdef char* text
        cdef int seconds = call.used_seconds if operation == RESERVE else call.talk_seconds
        if line.state != OPEN:
            sent.call, sent.operation, sent.due_ns, sent.sent_ns = call, operation, due_ns, now_ns
            return self.on_answer(&sent, LOST, b"", 0, now_ns)
        if not line.unsent:
            self._unflushed[self._unflushed_count] = call.line
            self._unflushed_count += 1
        text = line.space(self._drafts.request_bytes_max)
        line.ask(
            call, operation, due_ns,
            self._drafts.write(text, call.draft, operation, call.number, seconds),
        )
        return 0

    # What happens on a line.

    cdef int hear(self, Line line, unsigned int events) except -1:
        cdef Py_ssize_t size
        cdef int64_t now_ns
        if line.state == CONNECTING and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            if not line.is_connected():
                self.lose(line)
        if line.state != OPEN:
            return 0
        if events & EPOLLOUT:
            line.send_rest()
        if events & (EPOLLIN | EPOLLERR | EPOLLHUP):
            size = line.receive()
            # This is the moment at which the answers are read.
            now_ns = monotonic_ns()
            if size > 0:
                self.read_answers(line, now_ns)
            elif size == 0:
                self.lose(line)
            # Other lines may have answers, too: nothing that is due waits for them.
            if self.next_ns() <= now_ns:
                self.ask_due(now_ns)
        return 0

    cdef int read_answers(self, Line line, int64_t now_ns) except -1:
        cdef Answer answer
        cdef Sent sent
        while True:
            try:
                if not line.reader.next(&answer):
                    return 0
            except LoadTestError:
                return self.lose(line)
            # A server may turn us away before we have asked.
            if line.in_flight:
                sent = line.take()
                self.on_answer(&sent, answer.status, answer.body, answer.body_bytes, now_ns)

    cdef int lose(self, Line line) except -1:
        """Tell of what will never be answered, and connect again soon."""
        cdef int64_t now_ns = monotonic_ns()
        cdef Sent sent
        line.lose()
        while line.in_flight:
            sent = line.take()
            self.on_answer(&sent, LOST, b"", 0, now_ns)
        line.again_ns = now_ns + AGAIN_NS
        self._again_ns = min(self._again_ns, line.again_ns)
        return 0

    cdef connect_again(self, int64_t now_ns):
        cdef Line line
        self._again_ns = INT64_MAX
        for line in self._lines:
            if line.again_ns and line.again_ns <= now_ns:
                try:
                    line.connect_again()
                except OSError:
                    line.lose()
                    line.again_ns = now_ns + AGAIN_NS
            if line.again_ns:
                self._again_ns = min(self._again_ns, line.again_ns)

    # A call's life.

    cdef int on_answer(
        self, Sent* sent, int status, const char* body, Py_ssize_t size, int64_t now_ns
    ) except -1:
        """Note an answer and plan what its call does next."""
        cdef Decision decision
        if sent.operation == SETTLE:
            return self.on_settled(sent, status, body, size, now_ns)
        if status == 200 and scan_decision(body, size, &decision):
            if decision.allowed:
                self.note(sent, OK, now_ns)
                return self.plan_next_step(
                    sent.call, decision.seconds, decision.extend_at, now_ns
                )
            outcome = self._recorder.number_said(decision.reason, decision.reason_bytes)
            return self.on_denied(sent, outcome, now_ns)
        unusual = read_decision(status, body[:size])
        if unusual is None:
            self.note(sent, self._recorder.number(failure(status, body[:size])), now_ns)
            return self.end_call(sent.call, now_ns, True)
        if unusual.allowed:
            self.note(sent, OK, now_ns)
            seconds = -1 if unusual.seconds is None else unusual.seconds
            return self.plan_next_step(sent.call, seconds, unusual.extend_at, now_ns)
        return self.on_denied(sent, self._recorder.number(unusual.reason), now_ns)

    cdef int on_denied(self, Sent* sent, int outcome, int64_t now_ns) except -1:
        self.note(sent, outcome, now_ns)
        if sent.operation != RESERVE:
            return self.end_call(sent.call, now_ns, False)
        # As a switch does: no more time, so hang up now.
        sent.call.talk_seconds = sent.call.used_seconds
        return self._agenda.add(now_ns, SETTLE, <uintptr_t>sent.call)

    cdef int on_settled(
        self, Sent* sent, int status, const char* body, Py_ssize_t size, int64_t now_ns
    ) except -1:
        if status == 200:
            self.note(sent, OK, now_ns)
            return self.end_call(sent.call, now_ns, False)
        self.note(sent, self._recorder.number(failure(status, body[:size])), now_ns)
        sent.call.attempts += 1
        if (status == 503 or status == LOST) and sent.call.attempts < SETTLE_ATTEMPTS_MAX:
            return self._agenda.add(now_ns + RETRY_NS, SETTLE, <uintptr_t>sent.call)
        return self.end_call(sent.call, now_ns, True)

    cdef int plan_next_step(
        self, Call* call, int64_t seconds, int64_t extend_at, int64_t now_ns
    ) except -1:
        """Extend when the grant says so, or hang up when the talk or the granted time ends.

        `seconds` below 0 limit nothing.
        """
        cdef int operation = SETTLE
        cdef int64_t second
        if call.draft.extends and call.used_seconds < extend_at < call.talk_seconds:
            operation = RESERVE
            second = call.used_seconds = <int>extend_at
        else:
            if 0 <= seconds < call.talk_seconds:
                call.talk_seconds = <int>seconds
            second = call.talk_seconds or RING_SECONDS
        if not self._is_closed_loop:
            now_ns = call.begun_ns + <int64_t>(second * self._ns_per_call_second)
        return self._agenda.add(now_ns, operation, <uintptr_t>call)

    cdef int end_call(self, Call* call, int64_t now_ns, bint has_failed) except -1:
        self._calls -= 1
        call.next_free = self._free
        self._free = call
        if self._is_closed_loop and now_ns < self._end_ns:
            # A server that is away must not make the generator spin.
            return self._agenda.add(now_ns + RETRY_NS if has_failed else now_ns, AUTHORIZE, 0)
        return 0

    cdef Call* new_call(self) except NULL:
        cdef Call* call
        if self._free == NULL:
            self.more_calls()
        call = self._free
        self._free = call.next_free
        return call

    cdef more_calls(self):
        cdef Call** blocks = <Call**>realloc(
            self._blocks, (self._blocks_count + 1) * sizeof(Call*)
        )
        cdef Call* block
        cdef int place
        if blocks == NULL:
            raise MemoryError
        self._blocks = blocks
        block = <Call*>calloc(CALLS_IN_A_BLOCK, sizeof(Call))
        if block == NULL:
            raise MemoryError
        blocks[self._blocks_count] = block
        self._blocks_count += 1
        for place in range(CALLS_IN_A_BLOCK):
            block[place].next_free = self._free
            self._free = &block[place]

    cdef int note(self, Sent* sent, int outcome, int64_t now_ns) except -1:
        return self._recorder.note(sent.operation, outcome, sent.due_ns, sent.sent_ns, now_ns)
