"""Wrong tokens are limited by address, and the table of addresses is bounded."""

from __future__ import annotations

import pytest

from authz.admin import attempts
from authz.admin.attempts import ADDRESSES_MAX, BURST, INTERVAL_SECONDS, FailedAttempts


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000

    def __call__(self) -> int:
        return self.seconds * 1_000_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failed(clock: Clock) -> FailedAttempts:
    return FailedAttempts(clock)


def exhaust(failed: FailedAttempts, address: str) -> None:
    for _ in range(BURST):
        assert failed.wait_seconds(address) == 0
        failed.note(address)


def test_a_burst_passes_and_then_one_each_interval(failed: FailedAttempts, clock: Clock) -> None:
    exhaust(failed, "192.0.2.1")
    assert failed.wait_seconds("192.0.2.1") == INTERVAL_SECONDS
    assert failed.wait_seconds("192.0.2.2") == 0
    clock.seconds += INTERVAL_SECONDS - 1
    assert failed.wait_seconds("192.0.2.1") == 1
    clock.seconds += 1
    assert failed.wait_seconds("192.0.2.1") == 0
    failed.note("192.0.2.1")
    assert failed.wait_seconds("192.0.2.1") == INTERVAL_SECONDS
    clock.seconds += BURST * INTERVAL_SECONDS
    exhaust(failed, "192.0.2.1")


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("fe80::1%eth0", "fe80::2%eth1"),
        ("", ""),
        ("unix:", "unix:"),
    ],
)
def test_a_network_counts_as_one(failed: FailedAttempts, one: str, same: str) -> None:
    exhaust(failed, one)
    assert failed.wait_seconds(same) > 0
    assert failed.wait_seconds("2001:db8:0:1::1") == 0


def test_the_table_is_bounded(failed: FailedAttempts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ADDRESSES_MAX >= 1_000
    monkeypatch.setattr(attempts, "ADDRESSES_MAX", 3)
    for number in range(4):
        exhaust(failed, f"192.0.2.{number}")
    assert len(failed._until) == 3
    assert failed.wait_seconds("192.0.2.0") == 0
    assert failed.wait_seconds("192.0.2.3") > 0
