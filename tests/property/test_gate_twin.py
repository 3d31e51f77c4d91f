"""Several gates before one exact store: none ever refuses what the store would have admitted.

The store is simulated with exact rational time: one GCRA state, a clock of its own that drifts,
and changes of the limit. Processes ask it over ways of random length, so that answers overtake
each other. A second test compares one gate with a twin that recomputes everything from its
history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from authz.reasons import REASONS, CallClass, Direction
from authz_ext.gate import CallGate

RATE = REASONS["call_rate_exceeded"].code
SECOND_US = 1_000_000
PROCESSES = 3


@dataclass
class Store:
    """The shared rule: `rate` calls at once, then one per 1 s / rate; a denied one is free."""

    rate: int
    started_us: int
    drift_ppm: int
    version: int = 1
    changed_us: Fraction | None = None
    arrival_us: Fraction = Fraction(0)

    def clock_us(self, true_us: Fraction) -> Fraction:
        return self.started_us + true_us * (1_000_000 + self.drift_ppm) / 1_000_000

    def conforms_at(self, store_us: Fraction) -> bool:
        if self.rate == 0:
            return False
        interval = Fraction(SECOND_US, self.rate)
        return max(self.arrival_us, store_us) + interval - store_us <= SECOND_US

    def admits(self, store_us: Fraction) -> bool:
        if not self.conforms_at(store_us):
            return False
        self.arrival_us = max(self.arrival_us, store_us) + Fraction(SECOND_US, self.rate)
        return True

    def free_again_us(self) -> Fraction:
        """The store time from which a call conforms, if no other is admitted before."""
        return self.arrival_us + Fraction(SECOND_US, self.rate) - SECOND_US

    def until_us(self) -> int:
        """What a script answers to a denied call: the same in whole microseconds."""
        return int(self.free_again_us()) if self.rate else 0

    def true_us(self, store_us: Fraction) -> Fraction:
        return (store_us - self.started_us) * 1_000_000 / (1_000_000 + self.drift_ppm)


@dataclass(order=True)
class Step:
    """Something that happens at a true time: `kind` is ask, execute, answer or change."""

    true_us: int
    sequence: int
    kind: str = field(compare=False)
    process: int = field(compare=False, default=0)
    flight_us: tuple[int, int] = field(compare=False, default=(0, 0))
    answer: tuple[int, int, int, int, bool] | None = field(compare=False, default=None)
    rate: int = field(compare=False, default=0)


@dataclass
class World:
    """The processes' gates, what each believes the limit to be, and the store."""

    store: Store
    gates: list[CallGate]
    own_offsets_us: list[int]
    known: list[tuple[int, int]]
    asked: int = 0
    refused_locally: int = 0

    def own_us(self, process: int, true_us: int) -> int:
        return true_us + self.own_offsets_us[process]

    def ask(self, step: Step) -> Step | None:
        gate = self.gates[step.process]
        version, rate = self.known[step.process]
        now_us = self.own_us(step.process, step.true_us)
        reason = gate.refuses(
            "a", version, rate, -1, -1, Direction.OUTBOUND, CallClass.NATIONAL, now_us
        )
        if reason == 0:
            self.asked += 1
            execution = step.true_us + step.flight_us[0]
            return Step(execution, step.sequence, "execute", step.process,
                        (step.true_us, step.flight_us[1]))  # fmt: skip
        assert reason == RATE
        self.refused_locally += 1
        self.check_refusal(gate, version, Fraction(step.true_us))
        return None

    def check_refusal(self, gate: CallGate, version: int, true_us: Fraction) -> None:
        """The store too would refuse, whenever within the margin its script ran."""
        store = self.store
        if store.version != version:
            # A change made elsewhere is heeded within the age of a proof.
            assert store.changed_us is not None
            assert true_us - store.changed_us <= gate.proof_us_max
            return
        for part in range(3):
            at = store.clock_us(true_us + Fraction(gate.margin_us * part, 2))
            assert not store.conforms_at(at), "the gate refused what the store admits"

    def execute(self, step: Step) -> Step:
        store = self.store
        sent_true_us, back_us = step.flight_us
        store_us = store.clock_us(Fraction(step.true_us))
        self.known[step.process] = (store.version, store.rate)
        admitted = store.admits(store_us)
        answer = (store.version, store.rate, sent_true_us, int(store_us), admitted)
        return Step(step.true_us + back_us, step.sequence, "answer", step.process,
                    (store.until_us(), 0), answer)  # fmt: skip

    def take(self, step: Step) -> None:
        assert step.answer is not None
        gate = self.gates[step.process]
        version, rate, sent_true_us, store_us, admitted = step.answer
        sent_us = self.own_us(step.process, sent_true_us)
        if admitted:
            gate.admitted("a", version, rate, sent_us, store_us)
        else:
            # Half of the scripts say when; the gate must be right with either.
            until_us = step.flight_us[0] if step.sequence % 2 else 0
            gate.denied("a", version, sent_us, store_us, until_us)

    def probe(self, now_us: int) -> None:
        """Ask each gate for the first moment at which the store may admit a call."""
        store = self.store
        if store.rate == 0:
            return
        for process, gate in enumerate(self.gates):
            if self.known[process][0] != store.version:
                continue
            first_us = math.ceil(store.true_us(store.free_again_us()) - gate.margin_us)
            own_us = self.own_us(process, max(first_us, now_us))
            assert gate.refuses("a", store.version, store.rate, -1, -1, 0, 4, own_us) == 0

    def run(self, steps: list[Step]) -> None:
        while steps:
            steps.sort()
            step = steps.pop(0)
            following: Step | None = None
            if step.kind == "ask":
                following = self.ask(step)
            elif step.kind == "execute":
                following = self.execute(step)
            elif step.kind == "answer":
                self.take(step)
            else:
                self.store.rate = step.rate
                self.store.version += 1
                self.store.changed_us = Fraction(step.true_us)
            if following is not None:
                steps.append(following)
            self.probe(step.true_us)


def build(rate: int, drift_ppm: int, margin_us: int, offsets_us: list[int]) -> World:
    return World(
        store=Store(rate, started_us=1_800_000_000_000_000, drift_ppm=drift_ppm),
        gates=[CallGate(margin_us=margin_us) for _ in offsets_us],
        own_offsets_us=offsets_us,
        known=[(1, rate) for _ in offsets_us],
    )


RATES = st.one_of(st.integers(0, 12), st.sampled_from([30, 70, 333, 7_000, 100_000]))
FLIGHTS = st.one_of(st.integers(0, 2_000), st.integers(0, 400_000))
ASKS = st.tuples(
    st.one_of(st.integers(0, 500), st.integers(0, 300_000)),
    st.integers(0, PROCESSES - 1),
    FLIGHTS,
    FLIGHTS,
)


@given(
    rate=RATES,
    drift_ppm=st.integers(-900, 900),
    margin_us=st.sampled_from([0, 5_000, 250_000]),
    offsets_us=st.lists(st.integers(0, 10**12), min_size=PROCESSES, max_size=PROCESSES),
    asks=st.lists(ASKS, max_size=60),
    changes=st.lists(st.tuples(st.integers(0, 3_000_000), RATES), max_size=2),
)
@settings(max_examples=400, deadline=None)
def test_no_gate_refuses_what_the_store_would_admit(
    rate: int,
    drift_ppm: int,
    margin_us: int,
    offsets_us: list[int],
    asks: list[tuple[int, int, int, int]],
    changes: list[tuple[int, int]],
) -> None:
    world = build(rate, drift_ppm, margin_us, offsets_us)
    steps = []
    true_us = 0
    for sequence, (gap_us, process, there_us, back_us) in enumerate(asks):
        true_us += gap_us
        steps.append(Step(true_us, sequence, "ask", process, (there_us, back_us)))
    for sequence, (at_us, new_rate) in enumerate(changes, start=len(asks)):
        steps.append(Step(at_us, sequence, "change", rate=new_rate))
    world.run(steps)


def test_a_hammering_dialler_is_mostly_refused_without_asking() -> None:
    """1,000 calls a second for three seconds against a limit of 5: the store sees few of them."""
    world = build(5, 0, 5_000, [0])
    world.run([Step(at * 1_000, at, "ask", 0, (200, 200)) for at in range(3_000)])
    assert world.refused_locally > 2_800
    assert world.asked + world.refused_locally == 3_000


@dataclass
class Twin:
    """The rule of the gate, said plainly over everything one process was ever told."""

    margin_us: int
    proof_us_max: int
    #: (version, sent, store time, interval or None, until) of the answers that count.
    history: list[tuple[int, int, int, int | None, int]] = field(default_factory=list)

    def hear(self, version: int, sent_us: int, store_us: int, rate: int | None, until: int) -> None:
        if self.history:
            last_version, last_sent_us, last_store_us, _, _ = self.history[-1]
            if version < last_version:
                return
            if version > last_version or sent_us - last_sent_us > self.proof_us_max:
                self.history.clear()
            elif store_us < last_store_us:
                return
        interval = None if rate is None else SECOND_US // rate
        self.history.append((version, sent_us, store_us, interval, until))

    def refuses(self, version: int, rate: int, now_us: int) -> bool:
        if not self.history or self.history[-1][0] != version:
            return False
        _, sent_us, store_us, _, _ = self.history[-1]
        elapsed_us = now_us - sent_us
        if not 0 <= elapsed_us <= self.proof_us_max:
            return False
        ahead_us = elapsed_us + self.margin_us
        latest_us = store_us + ahead_us + ahead_us // 1_000 + 1
        arrival_us = 0
        for _, _, at_us, interval, _ in self.history:
            if interval is not None:
                arrival_us = max(arrival_us, at_us) + interval
        if any(latest_us < min(until, at_us + SECOND_US) for _, _, at_us, _, until in self.history):
            return True
        return max(arrival_us, latest_us) + SECOND_US // rate - latest_us > SECOND_US


@given(
    margin_us=st.sampled_from([0, 7, 5_000]),
    heard=st.lists(
        st.tuples(
            st.integers(1, 3),
            st.integers(-1_000, 600_000),
            st.integers(-2_000, 600_000),
            st.booleans(),
            st.integers(0, 1_500_000),
            st.integers(-1_000, 400_000),
        ),
        max_size=40,
    ),
    rate=st.integers(1, 40),
)
@settings(max_examples=400, deadline=None)
def test_the_gate_is_its_twin(
    margin_us: int, heard: list[tuple[int, int, int, bool, int, int]], rate: int
) -> None:
    gate = CallGate(margin_us=margin_us)
    twin = Twin(margin_us, gate.proof_us_max)
    sent_us, store_us = 10**9, 10**15
    for version, sent_step, store_step, admitted, until_in_us, asked_after_us in heard:
        sent_us += sent_step
        store_us += store_step
        if admitted:
            gate.admitted("a", version, rate, sent_us, store_us)
            twin.hear(version, sent_us, store_us, rate, 0)
        else:
            gate.denied("a", version, sent_us, store_us, store_us + until_in_us)
            twin.hear(version, sent_us, store_us, None, store_us + until_in_us)
        now_us = sent_us + asked_after_us
        for asked in (version, version + 1):
            refused = gate.refuses("a", asked, rate, -1, -1, 0, CallClass.NATIONAL, now_us)
            assert refused == (RATE if twin.refuses(asked, rate, now_us) else 0)
