"""The first gate: what one process may refuse by itself, and the gauges of what it lets through.

Nobody is ever refused wrongly, so the gate refuses only on a proof. Every proof is made of answers
of the store; what is not proved is asked.

**What is a proof.** All of it holds for one *version* of an account's configuration and only within
`proof_us_max` after the question to which the store answered under that version. A configuration
changed meanwhile by another process is therefore heeded at the latest after that time, and a
hammering dialler costs one question per `proof_us_max` at the least.

1. *A limit of 0* (calls per second, calls, calls of the class): no call ever conforms.
2. *Calls per second.* The store keeps one theoretical arrival time per account; an admitted call
   moves it to max(it, now) + interval, a denied one leaves it, nothing ever moves it back (a
   released call's token is spent, and a version's change drops what is known here). That
   step is monotone, so the same step fed with only this process's admitted calls, in the order of
   their store times, never passes the true value. An answer that comes out of order (two
   connections) is left out: a missing call makes the bound lower, never wrong. A script may also
   tell the time until which no call conforms; other processes can only move that later.
3. *The time.* A bound on the arrival time refuses only with an upper bound on store time. A script
   ran after its command was handed over, so store time at own time `n` is at most
   `store_us + (n - sent_us)`; measured from the receipt it would be a lower bound and the gate
   would refuse too long. `margin_us` allows for the way to the store: the call is refused only if a
   script that ran `margin_us` from now would refuse it too. A tenth of a percent of the time until
   then allows for drift of the clocks. Each account keeps its own pair of times, as the
   buckets of a cluster live on servers with clocks of their own.

**What is none.** The number of live calls: a call that this process allowed may at any moment be
settled through another worker or daemon, orphaned by the office process's sweeper, or released.
Own counts, however high, and even the store's last `max_calls_exceeded`, say nothing of now, so
concurrent calls are decided by the script alone, but for a limit of 0. There is no "only process"
mode: the sweeper is always another process. The counts are gauges.

**Repeats.** The store repeats its answer to an authorize that it has answered already, whatever
the limits say. So a call that `counts` says is live here is not to be put to the gate. One that
another process let through cannot be told from a new one here: repeated to this process while it
holds a proof, it is refused as a new call would be, and the same question a moment later is
answered by the store.

When the store's run id changes, `forget` drops all proofs: a promoted replica may lag behind them.
For one thread (the event loop). Times are whole microseconds: `store_us` of the store, all others
of one monotonic clock of the process.
"""

from __future__ import annotations

from collections import deque

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from authz_ext.tables cimport SpreadTable

cdef enum:
    CLASSES = 8
    DIRECTIONS = 2
    CLASS_EMERGENCY = 0
    DIRECTION_OUTBOUND = 0
    OK = 0
    CALL_RATE_EXCEEDED = 8
    MAX_CALLS_EXCEEDED = 9
    MAX_CLASS_CALLS_EXCEEDED = 10
    SECOND_US = 1_000_000
    # Elapsed time per microsecond by which two clocks may differ: NTP slews by half of this.
    DRIFT_DIVISOR = 1_000
    # Leases are filed by 2**20 us = 1.05 s.
    SLOT_BITS = 20
    ACCOUNTS_SWEPT_AT_ONCE = 2
    # Of those that have come up, while a call waits.
    LEASES_LOOKED_AT_ONCE = 256


@cython.final
cdef class Account:
    """What one process knows of one account."""

    cdef bint learn(
        self, long long version, long long sent_us, long long store_us, long long proof_us_max
    ):
        """Take an answer of the store; True if it is the latest by the store's clock."""
        if version < self.version:
            return False
        if version > self.version or sent_us - self.sent_us > proof_us_max:
            # Nothing known under another version, or older than a proof may be, counts on.
            self.version = version
            self.arrival_us = 0
            self.blocked_until_us = 0
        elif store_us < self.store_us:
            return False
        self.sent_us = sent_us
        self.store_us = store_us
        return True

    cdef void count_admission(self, long long now_us):
        cdef long long second = now_us // SECOND_US
        if second != self.second:
            self.admitted_last_second = self.admitted_this_second if second == self.second + 1 else 0
            self.admitted_this_second = 0
            self.second = second
        self.admitted_this_second += 1

    cdef bint proves_rate_exceeded(self, long long calls_per_second, long long latest_us):
        """Whether no call conforms at any store time up to `latest_us`."""
        if latest_us < self.blocked_until_us:
            return True
        # The interval is rounded down, so that it never passes the script's.
        return (
            self.arrival_us > latest_us
            and self.arrival_us + SECOND_US // calls_per_second - latest_us > SECOND_US
        )


@cython.final
@cython.no_gc  # it refers to its key, a text, and to accounts, which refer to nothing
@cython.freelist(256)
cdef class LiveCall:
    """One call that this process let through and has not seen end.

    It belongs to the gate's table of calls. Its neighbours of the same slot are borrowed: whoever
    takes it out of the table has taken it out of its slot before.
    """

    def __dealloc__(self):
        for leg in range(self.legs):
            Py_DECREF(<Account>self.accounts[leg])


cdef class CallGate:
    """Refuses what answers of the store prove exceeded, and counts this process's calls.

    `margin_us` is the time within which a script would run if it were asked instead, and
    `proof_us_max` the age past which an answer of the store proves nothing any more.
    """

    def __init__(self, *, margin_us: int = 5_000, proof_us_max: int = 1_000_000) -> None:
        if not 0 <= margin_us <= 10 * SECOND_US:
            raise ValueError("margin_us: expected 0 to 10,000,000")
        if not 0 < proof_us_max <= SECOND_US:
            raise ValueError("proof_us_max: expected 1 to 1,000,000")
        self.margin_us = margin_us
        self.proof_us_max = proof_us_max
        self._accounts = {}
        self._sweep_order = deque()
        self._calls = SpreadTable()
        self._slots = {}
        self._slot_next = -1

    def refuses(
        self,
        str account not None,
        long long version,
        long long calls_per_second,
        long long max_calls,
        long long class_limit,
        int direction,
        int call_class,
        long long now_us,
    ):
        """Return the code of the reason for which the store would certainly deny a call, or 0.

        The limits are those of the account at `version`; -1 is no limit. An outbound emergency
        call is never refused. Not to be asked for a call that `counts` knows.
        """
        return self._reason_against(
            account, version, calls_per_second, max_calls, class_limit, direction, call_class, now_us
        )

    def first_refusal(
        self, call not None, limits, int direction, int call_class, long long now_us
    ):
        """Return (code, account) of the first refusal of a chain's accounts, or None.

        `call` is its key: one that is counted already is not refused, it is the store's to repeat
        its answer. `limits` are (account, version, calls per second, calls, calls of the class) of
        each account, as `refuses` takes them.
        """
        cdef int reason
        if self._calls.find(call) is not None:
            return None
        for account, version, calls_per_second, max_calls, class_limit in limits:
            reason = self._reason_against(
                account, version, calls_per_second, max_calls, class_limit, direction, call_class,
                now_us,
            )
            if reason != OK:
                return (reason, account)
        return None

    cdef int _reason_against(
        self, str account, long long version, long long calls_per_second, long long max_calls,
        long long class_limit, int direction, int call_class, long long now_us,
    ) except -1:
        cdef Account entry
        cdef long long elapsed_us, ahead_us
        cdef int reason = OK
        found = self._accounts.get(account)
        if found is None or (call_class == CLASS_EMERGENCY and direction == DIRECTION_OUTBOUND):
            return OK
        entry = <Account>found
        elapsed_us = now_us - entry.sent_us
        if entry.version != version or version < 0:
            return OK
        if elapsed_us < 0 or elapsed_us > self.proof_us_max:
            return OK
        ahead_us = elapsed_us + self.margin_us
        if calls_per_second == 0 or (
            calls_per_second > 0
            and entry.proves_rate_exceeded(
                calls_per_second,
                entry.store_us + ahead_us + ahead_us // DRIFT_DIVISOR + 1,
            )
        ):
            reason = CALL_RATE_EXCEEDED
        elif max_calls == 0:
            reason = MAX_CALLS_EXCEEDED
        elif class_limit == 0:
            reason = MAX_CLASS_CALLS_EXCEEDED
        if reason != OK:
            self.refused += 1
        return reason

    def admitted(
        self,
        str account not None,
        long long version,
        long long calls_per_second,
        long long sent_us,
        long long store_us,
    ):
        """Take the store's word that it admitted a new call of `account` under `version`.

        Only where the script took a token: not for a repeated answer, a dry run, an outbound
        emergency call, or a call let through while the store was away.
        `calls_per_second` is the limit at that version, -1 for none; `sent_us` the own time
        before the command was handed over, `store_us` the store's time in its answer.
        """
        self._admitted(account, version, calls_per_second, sent_us, store_us)

    def admitted_by_all(self, limits, long long sent_us, long long store_us):
        """Do as `admitted` for each account of a chain that has a limit of calls per second.

        `limits` are as `first_refusal` takes them.
        """
        cdef long long calls_per_second
        for account, version, calls_per_second, _, _ in limits:
            if calls_per_second >= 0:
                self._admitted(account, version, calls_per_second, sent_us, store_us)

    cdef int _admitted(
        self, str account, long long version, long long calls_per_second, long long sent_us,
        long long store_us,
    ) except -1:
        cdef Account entry = self._entry(account, sent_us)
        self.admitted_total += 1
        entry.count_admission(sent_us)
        if entry.learn(version, sent_us, store_us, self.proof_us_max) and calls_per_second > 0:
            if entry.arrival_us < store_us:
                entry.arrival_us = store_us
            entry.arrival_us += SECOND_US // calls_per_second
        self._sweep(sent_us)
        return 0

    def denied(
        self,
        str account not None,
        long long version,
        long long sent_us,
        long long store_us,
        long long until_us = 0,
    ):
        """Take the store's word that it denied a call of `account` under `version`.

        `until_us` is the store time before which no call of the account conforms to its calls
        per second, where the script said one; at most a second ahead is believed.
        """
        cdef Account entry = self._entry(account, sent_us)
        if entry.learn(version, sent_us, store_us, self.proof_us_max):
            until_us = min(until_us, store_us + SECOND_US)
            entry.blocked_until_us = max(entry.blocked_until_us, until_us)
        self._sweep(sent_us)

    def forget(self):
        """Drop every proof, as when another server has become the store; the gauges stay."""
        cdef Account entry
        for entry in self._accounts.values():
            entry.version = -1

    def opened(
        self, call not None, tuple accounts not None, int direction, int call_class,
        long long lease_until_us, long long now_us,
    ):
        """Count a call that was allowed, in each account of its chain, until its lease ends.

        `call` is its key, unique and hashable; a key that is counted already is only renewed.
        """
        cdef LiveCall live
        cdef Account entry
        if not (0 <= direction < DIRECTIONS and 0 <= call_class < CLASSES):
            raise ValueError("direction or call_class out of range")
        self._expire(now_us, LEASES_LOOKED_AT_ONCE)
        if self._calls.find(call) is not None:
            self.renewed(call, lease_until_us)
            return
        if len(accounts) > CHAIN_MAX:
            raise ValueError(f"a chain of {len(accounts)} accounts, more than {CHAIN_MAX}")
        live = LiveCall.__new__(LiveCall)
        live.key = call
        live.index = direction * CLASSES + call_class
        live.lease_until_us = lease_until_us
        for name in accounts:
            entry = self._entry(<str?>name, now_us)
            Py_INCREF(entry)
            live.accounts[live.legs] = <PyObject*>entry
            live.legs += 1
        self._calls.add(call, live)
        self._file(live)
        self._count(live, 1)
        self._sweep(now_us)

    def renewed(self, call, long long lease_until_us):
        """Move the end of a counted call's lease; an unknown call is left alone."""
        cdef LiveCall live
        found = self._calls.find(call)
        if found is None:
            return
        live = <LiveCall>found
        live.lease_until_us = lease_until_us
        # A later end is filed when its present slot comes up, an earlier one at once.
        if lease_until_us >> SLOT_BITS < live.slot:
            self._unfile(live)
            self._file(live)

    def closed(self, call):
        """Stop counting a call that has ended; True if it was counted."""
        found = self._calls.take(call)
        if found is None:
            return False
        self._unfile(<LiveCall>found)
        self._count(<LiveCall>found, -1)
        return True

    def counts(self, call):
        """Whether this process let the call through and has not seen it end."""
        return self._calls.find(call) is not None

    def expire(self, long long now_us):
        """Stop counting calls whose lease ended unheard of here (to within 1.05 s).

        They were settled through another process or became orphans. `live` and `totals` call
        this themselves; `opened` looks at some of them, so that no call waits for all.
        """
        self._expire(now_us, -1)

    cdef int _expire(self, long long now_us, Py_ssize_t looks) except -1:
        """Do as `expire` for at most so many calls, or all (-1); the next time goes on with it."""
        cdef LiveCall call
        cdef long long slot_now = now_us >> SLOT_BITS
        if slot_now <= self._slot_next:
            return 0
        for slot in sorted([slot for slot in self._slots if slot < slot_now]):
            while slot in self._slots:
                if looks == 0:
                    return 0
                looks -= 1
                call = <LiveCall>self._slots[slot]
                self._unfile(call)
                if call.lease_until_us > now_us:
                    # Not in this slot again: its lease ends in a later one.
                    self._file(call)
                else:
                    self._calls.take(call.key)
                    self._count(call, -1)
                    self.lapsed += 1
        self._slot_next = slot_now
        return 0

    def live(self, str account not None, long long now_us):
        """Return this process's live calls of an account by (direction, class), without zeros."""
        self.expire(now_us)
        found = self._accounts.get(account)
        return {} if found is None else _nonzero((<Account>found).live)

    def totals(self, long long now_us):
        """Return this process's live calls by (direction, class), without zeros."""
        self.expire(now_us)
        return _nonzero(self._totals)

    def admitted_last_second(self, str account not None, long long now_us):
        """Return how many calls of an account were admitted in the last whole second."""
        cdef Account entry
        cdef long long second = now_us // SECOND_US
        found = self._accounts.get(account)
        if found is None:
            return 0
        entry = <Account>found
        if entry.second == second:
            return entry.admitted_last_second
        return entry.admitted_this_second if entry.second == second - 1 else 0

    @property
    def account_count(self):
        """Accounts in the table."""
        return len(self._accounts)

    @property
    def call_count(self):
        """Live calls in the table."""
        return self._calls.size

    cdef Account _entry(self, str name, long long now_us):
        cdef Account entry
        found = self._accounts.get(name)
        if found is not None:
            return <Account>found
        entry = Account.__new__(Account)
        entry.name = name
        entry.version = -1
        entry.sent_us = now_us
        self._accounts[name] = entry
        self._sweep_order.append(entry)
        self._unswept += ACCOUNTS_SWEPT_AT_ONCE
        return entry

    cdef void _sweep(self, long long now_us):
        """Look at the accounts looked at longest ago and drop those of no more use.

        Two for each new one: the table stays below twice the accounts in use. Called only where
        no entry is on its way to be counted.
        """
        cdef Account entry
        while self._unswept > 0 and self._sweep_order:
            self._unswept -= 1
            entry = <Account>self._sweep_order.popleft()
            if entry.live_count == 0 and now_us - entry.sent_us > 2 * SECOND_US:
                del self._accounts[entry.name]
            else:
                self._sweep_order.append(entry)

    cdef int _file(self, LiveCall call) except -1:
        """Put a call before the first one of the slot in which its lease ends."""
        cdef LiveCall first
        call.slot = max(call.lease_until_us >> SLOT_BITS, self._slot_next)
        call.before = NULL
        call.after = NULL
        found = self._slots.get(call.slot)
        if found is not None:
            first = <LiveCall>found
            first.before = <PyObject*>call
            call.after = <PyObject*>first
        self._slots[call.slot] = call
        return 0

    cdef int _unfile(self, LiveCall call) except -1:
        if call.after != NULL:
            (<LiveCall>call.after).before = call.before
        if call.before != NULL:
            (<LiveCall>call.before).after = call.after
        elif call.after != NULL:
            self._slots[call.slot] = <LiveCall>call.after
        else:
            del self._slots[call.slot]
        return 0

    cdef void _count(self, LiveCall call, int step):
        cdef Account entry
        self._totals[call.index] += step
        for leg in range(call.legs):
            entry = <Account>call.accounts[leg]
            entry.live[call.index] += step
            entry.live_count += step


cdef dict _nonzero(long long *counts):
    cdef int index
    return {
        (index // CLASSES, index % CLASSES): counts[index]
        for index in range(DIRECTIONS * CLASSES)
        if counts[index] != 0
    }
