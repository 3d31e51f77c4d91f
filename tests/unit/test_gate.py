"""The call gate: what is a proof and what is none, and gauges that cannot leak."""

from __future__ import annotations

import pytest

from authz.reasons import REASONS, CallClass, Direction
from authz_ext.gate import CallGate

OUTBOUND, INBOUND = int(Direction.OUTBOUND), int(Direction.INBOUND)
NATIONAL = int(CallClass.NATIONAL)
RATE = REASONS["call_rate_exceeded"].code
CALLS = REASONS["max_calls_exceeded"].code
CLASS_CALLS = REASONS["max_class_calls_exceeded"].code
#: Store time of the tests' first answer, far from the own clock's.
STORE_US = 1_800_000_000_000_000
OWN_US = 77_000_000


def refuses(
    gate: CallGate,
    *,
    at_us: int = 0,
    version: int = 1,
    rate: int = -1,
    calls: int = -1,
    class_calls: int = -1,
    direction: int = OUTBOUND,
    call_class: int = NATIONAL,
) -> int:
    """Ask about account `a`, `at_us` after the tests' first question to the store."""
    return gate.refuses(
        "a", version, rate, calls, class_calls, direction, call_class, OWN_US + at_us
    )


def admit(gate: CallGate, *, rate: int, at_us: int = 0, flight_us: int = 0) -> None:
    gate.admitted("a", 1, rate, OWN_US + at_us, STORE_US + at_us + flight_us)


class TestProofs:
    def test_a_gate_that_knows_nothing_refuses_nothing(self) -> None:
        gate = CallGate()
        assert refuses(gate, rate=0, calls=0, class_calls=0) == 0
        assert gate.refused == 0

    def test_a_limit_of_0_is_refused_once_the_store_has_confirmed_the_version(self) -> None:
        gate = CallGate()
        gate.denied("a", 1, OWN_US, STORE_US)
        assert refuses(gate, rate=0, calls=0, class_calls=0) == RATE
        assert refuses(gate, calls=0, class_calls=0) == CALLS
        assert refuses(gate, class_calls=0) == CLASS_CALLS
        assert refuses(gate) == 0
        assert refuses(gate, rate=1, calls=1, class_calls=1) == 0
        assert gate.refused == 3

    def test_a_proof_ends_with_its_age_and_with_its_version(self) -> None:
        gate = CallGate(proof_us_max=200_000)
        gate.denied("a", 1, OWN_US, STORE_US)
        assert refuses(gate, calls=0, at_us=200_000) == CALLS
        assert refuses(gate, calls=0, at_us=200_001) == 0
        assert refuses(gate, calls=0, version=2) == 0
        assert refuses(gate, calls=0, version=0) == 0

    def test_a_negative_version_is_never_proved(self) -> None:
        gate = CallGate()
        gate.opened(b"c", ("a",), OUTBOUND, NATIONAL, OWN_US + 1, OWN_US)
        assert refuses(gate, calls=0, version=-1) == 0

    def test_another_account_proves_nothing(self) -> None:
        gate = CallGate()
        gate.denied("b", 1, OWN_US, STORE_US)
        assert refuses(gate, calls=0) == 0

    def test_an_outbound_emergency_call_is_never_refused_an_inbound_one_is(self) -> None:
        gate = CallGate()
        gate.denied("a", 1, OWN_US, STORE_US)
        emergency = int(CallClass.EMERGENCY)
        assert refuses(gate, rate=0, calls=0, class_calls=0, call_class=emergency) == 0
        assert refuses(gate, rate=0, call_class=emergency, direction=INBOUND) == RATE

    def test_live_calls_are_never_a_proof(self) -> None:
        gate = CallGate()
        gate.denied("a", 1, OWN_US, STORE_US)
        for number in range(50):
            gate.opened(number, ("a",), OUTBOUND, NATIONAL, OWN_US + 10**9, OWN_US)
        assert refuses(gate, calls=1, class_calls=1) == 0

    def test_forget_drops_proofs_and_keeps_gauges(self) -> None:
        gate = CallGate()
        gate.denied("a", 1, OWN_US, STORE_US)
        gate.opened(b"c", ("a",), OUTBOUND, NATIONAL, OWN_US + 10**9, OWN_US)
        gate.forget()
        assert refuses(gate, calls=0) == 0
        assert gate.totals(OWN_US) == {(OUTBOUND, NATIONAL): 1}
        gate.denied("a", 1, OWN_US, STORE_US)
        assert refuses(gate, calls=0) == CALLS

    @pytest.mark.parametrize("arguments", [{"margin_us": -1}, {"proof_us_max": 0}])
    def test_nonsense_settings_are_refused(self, arguments: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            CallGate(**arguments)


class TestCallsPerSecond:
    def test_a_burst_of_one_second_then_one_per_interval(self) -> None:
        gate = CallGate(margin_us=0)
        for _ in range(10):
            assert refuses(gate, rate=10) == 0
            admit(gate, rate=10)
        assert refuses(gate, rate=10) == RATE
        assert refuses(gate, rate=10, at_us=99_800) == RATE
        # The rest of the interval is left to the store: the clocks may differ by so much.
        assert refuses(gate, rate=10, at_us=99_900) == 0
        assert refuses(gate, rate=10, at_us=100_000) == 0

    def test_refuses_only_what_is_refused_for_the_whole_margin(self) -> None:
        gate = CallGate(margin_us=50_000)
        for _ in range(10):
            admit(gate, rate=10)
        assert refuses(gate, rate=10, at_us=49_000) == RATE
        # The clocks may differ by more until the end of the margin.
        assert refuses(gate, rate=10, at_us=49_920) == 0
        assert refuses(gate, rate=10, at_us=50_000) == 0

    def test_the_flight_of_the_question_counts_as_store_time_passed(self) -> None:
        gate = CallGate(margin_us=0)
        for _ in range(10):
            admit(gate, rate=10, flight_us=60_000)
        # Should the script have run at once, the store's time is 60 ms ahead of ours.
        assert refuses(gate, rate=10, at_us=99_800) == RATE
        admitted_at_once = CallGate(margin_us=0)
        for _ in range(10):
            admitted_at_once.admitted("a", 1, 10, OWN_US - 60_000, STORE_US)
        assert refuses(admitted_at_once, rate=10, at_us=39_000) == RATE
        assert refuses(admitted_at_once, rate=10, at_us=41_000) == 0

    def test_answers_out_of_order_never_raise_the_bound(self) -> None:
        gate = CallGate(margin_us=0)
        admit(gate, rate=1, at_us=900)
        # Executed first, answered last: counting it would prove a call too many.
        for _ in range(5):
            admit(gate, rate=1, at_us=0)
        assert refuses(gate, rate=1, at_us=998_000) == RATE
        assert refuses(gate, rate=1, at_us=1_000_900) == 0

    def test_a_new_version_starts_from_nothing_and_an_old_one_is_not_heard(self) -> None:
        gate = CallGate()
        for _ in range(3):
            admit(gate, rate=3)
        gate.denied("a", 2, OWN_US, STORE_US)
        assert refuses(gate, rate=3, version=2) == 0
        admit(gate, rate=3)
        assert refuses(gate, rate=3, version=1) == 0
        assert refuses(gate, rate=0, version=2) == RATE

    def test_the_store_may_say_until_when_no_call_conforms(self) -> None:
        gate = CallGate(margin_us=0)
        gate.denied("a", 1, OWN_US, STORE_US, STORE_US + 80_000)
        assert refuses(gate, rate=10, at_us=79_000) == RATE
        assert refuses(gate, rate=10, at_us=80_000) == 0
        # Said of a limit on calls per second only.
        assert refuses(gate, rate=-1) == 0

    def test_at_most_a_second_of_it_is_believed(self) -> None:
        gate = CallGate(margin_us=0)
        gate.denied("a", 1, OWN_US, STORE_US, STORE_US + 3_600_000_000)
        gate.denied("a", 1, OWN_US + 500_000, STORE_US + 1, 0)
        assert refuses(gate, rate=10, at_us=1_400_000) == RATE
        assert refuses(gate, rate=10, at_us=1_500_000) == 0

    def test_a_proof_older_than_it_may_be_does_not_count_on(self) -> None:
        gate = CallGate(margin_us=0)
        for _ in range(2):
            admit(gate, rate=2)
        gate.admitted("a", 1, 2, OWN_US + 1_000_001, STORE_US - 5_000_000)
        assert refuses(gate, rate=2, at_us=1_000_001) == 0

    def test_admissions_are_counted_by_second(self) -> None:
        gate = CallGate()
        for at_us in (0, 1, 999_999, 1_000_000):
            admit(gate, rate=-1, at_us=at_us)
        assert gate.admitted_last_second("a", OWN_US + 999_999) == 0
        assert gate.admitted_last_second("a", OWN_US + 1_000_000) == 3
        assert gate.admitted_last_second("a", OWN_US + 2_000_000) == 1
        assert gate.admitted_last_second("a", OWN_US + 3_000_000) == 0
        assert gate.admitted_last_second("b", OWN_US) == 0
        assert gate.admitted_total == 4


class TestGauges:
    LEASE_US = 60_000_000
    SLOT_US = 1 << 20

    def open(self, gate: CallGate, call: object, *, direction: int = OUTBOUND) -> None:
        gate.opened(call, ("sub", "master"), direction, NATIONAL, OWN_US + self.LEASE_US, OWN_US)

    def test_a_call_counts_once_in_total_and_in_each_account_of_its_chain(self) -> None:
        gate = CallGate()
        self.open(gate, b"1")
        self.open(gate, b"1")
        self.open(gate, b"2", direction=INBOUND)
        both = {(OUTBOUND, NATIONAL): 1, (INBOUND, NATIONAL): 1}
        assert gate.totals(OWN_US) == gate.live("sub", OWN_US) == both
        assert gate.live("master", OWN_US) == both
        assert gate.live("other", OWN_US) == {}
        assert gate.call_count == 2

    def test_an_end_counts_once(self) -> None:
        gate = CallGate()
        self.open(gate, b"1")
        assert gate.closed(b"1") is True
        assert gate.closed(b"1") is False
        assert gate.totals(OWN_US) == gate.live("sub", OWN_US) == {}

    def test_a_repeated_question_is_known_while_its_call_lives(self) -> None:
        gate = CallGate()
        assert gate.counts(("sub", "1")) is False
        self.open(gate, ("sub", "1"))
        assert gate.counts(("sub", "1")) is True
        gate.closed(("sub", "1"))
        assert gate.counts(("sub", "1")) is False

    def test_a_call_unheard_of_lapses_with_its_lease(self) -> None:
        gate = CallGate()
        self.open(gate, b"1")
        assert gate.totals(OWN_US + self.LEASE_US) == {(OUTBOUND, NATIONAL): 1}
        assert gate.totals(OWN_US + self.LEASE_US + self.SLOT_US) == {}
        assert (gate.lapsed, gate.call_count) == (1, 0)

    def test_a_renewed_lease_moves_both_ways(self) -> None:
        gate = CallGate()
        self.open(gate, b"long")
        self.open(gate, b"short")
        gate.renewed(b"long", OWN_US + 5 * self.LEASE_US)
        gate.renewed(b"short", OWN_US + self.LEASE_US // 4)
        gate.renewed(b"unknown", OWN_US)
        gate.expire(OWN_US + self.LEASE_US // 4 + self.SLOT_US)
        assert gate.closed(b"short") is False
        gate.expire(OWN_US + 5 * self.LEASE_US - 1)
        assert gate.closed(b"long") is True

    def test_an_idle_gate_of_years_starts_at_the_present(self) -> None:
        gate = CallGate()
        self.open(gate, b"1")
        gate.closed(b"1")
        later_us = OWN_US + 10**15
        gate.opened(b"2", ("sub",), OUTBOUND, NATIONAL, later_us + 1, later_us)
        gate.expire(later_us + 2 * self.SLOT_US)
        assert gate.call_count == 0

    def test_leases_that_lapsed_unheard_of_are_looked_at_by_and_by(self) -> None:
        gate = CallGate()
        for number in range(1_000):
            self.open(gate, number)
        later_us = OWN_US + self.LEASE_US + self.SLOT_US
        counts = []
        for number in range(1_000, 1_006):
            gate.opened(number, ("sub",), OUTBOUND, NATIONAL, later_us + self.LEASE_US, later_us)
            counts.append(gate.call_count)
        assert counts == [745, 490, 235, 4, 5, 6]
        assert gate.lapsed == 1_000
        assert gate.totals(later_us) == gate.live("sub", later_us) == {(OUTBOUND, NATIONAL): 6}

    def test_a_renewed_call_lives_on_while_others_lapse(self) -> None:
        gate = CallGate()
        for number in range(1_000):
            self.open(gate, number)
        gate.renewed(500, OWN_US + 3 * self.LEASE_US)
        later_us = OWN_US + self.LEASE_US + self.SLOT_US
        gate.opened("new", ("sub",), OUTBOUND, NATIONAL, later_us + self.LEASE_US, later_us)
        assert gate.totals(later_us) == {(OUTBOUND, NATIONAL): 2}
        assert gate.counts(500)
        gate.expire(OWN_US + 3 * self.LEASE_US + self.SLOT_US)
        assert gate.call_count == 0

    def test_a_chain_is_counted_whole_however_new_its_accounts_are(self) -> None:
        gate = CallGate()
        gate.opened("first", ("a",), OUTBOUND, NATIONAL, OWN_US + 1, OWN_US)
        later_us = OWN_US + 60_000_000
        gate.expire(later_us)
        # That `a` is of no more use may be found while `b` comes.
        gate.opened("second", ("a", "b"), OUTBOUND, NATIONAL, later_us + self.LEASE_US, later_us)
        both = {(OUTBOUND, NATIONAL): 1}
        assert gate.live("a", later_us) == gate.live("b", later_us) == both

    @pytest.mark.parametrize(("direction", "call_class"), [(2, 0), (-1, 0), (0, 8), (0, -1)])
    def test_what_is_no_class_or_direction_is_an_error(
        self, direction: int, call_class: int
    ) -> None:
        with pytest.raises(ValueError, match="out of range"):
            CallGate().opened(b"c", ("a",), direction, call_class, 1, 0)

    def test_every_class_and_direction_has_its_own_count(self) -> None:
        gate = CallGate()
        pairs = {(int(way), int(one)): 1 for way in Direction for one in CallClass}
        for call, (direction, call_class) in enumerate(pairs):
            gate.opened(call, ("a",), direction, call_class, 10**9, 0)
        assert gate.totals(0) == pairs

    def test_the_table_forgets_accounts_out_of_use_and_keeps_those_with_calls(self) -> None:
        gate = CallGate()
        gate.opened(b"c", ("kept",), OUTBOUND, NATIONAL, 10**15, 0)
        for number in range(20_000):
            gate.admitted(f"account-{number}", 1, 10, number * 10_000, STORE_US)
        # Two seconds at a hundred new accounts a second are in use at any time.
        assert gate.account_count < 1_000
        assert gate.live("kept", 0) == {(OUTBOUND, NATIONAL): 1}
