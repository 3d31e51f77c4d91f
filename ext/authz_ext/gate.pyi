"""The first gate of a process: refuses what answers of the store prove exceeded; counts calls."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

#: Account, version, calls per second, calls, calls of the class; -1: no limit.
Limits = tuple[str, int, int, int, int]

class CallGate:
    """Proofs by account and gauges of live calls; times are whole microseconds.

    `store_us` and `until_us` are the store's time, all others one monotonic clock of the process.
    """

    margin_us: int
    proof_us_max: int
    #: Calls this gate refused, calls the store admitted, counted calls whose lease ran out.
    refused: int
    admitted_total: int
    lapsed: int

    def __init__(self, *, margin_us: int = 5_000, proof_us_max: int = 1_000_000) -> None: ...
    def refuses(
        self,
        account: str,
        version: int,
        calls_per_second: int,
        max_calls: int,
        class_limit: int,
        direction: int,
        call_class: int,
        now_us: int,
    ) -> int: ...
    def first_refusal(
        self, call: Hashable, limits: Iterable[Limits], direction: int, call_class: int, now_us: int
    ) -> tuple[int, str] | None: ...
    def admitted(
        self, account: str, version: int, calls_per_second: int, sent_us: int, store_us: int
    ) -> None: ...
    def admitted_by_all(self, limits: Iterable[Limits], sent_us: int, store_us: int) -> None: ...
    def denied(
        self, account: str, version: int, sent_us: int, store_us: int, until_us: int = 0
    ) -> None: ...
    def forget(self) -> None: ...
    def opened(
        self,
        call: Hashable,
        accounts: tuple[str, ...],
        direction: int,
        call_class: int,
        lease_until_us: int,
        now_us: int,
    ) -> None: ...
    def renewed(self, call: Hashable, lease_until_us: int) -> None: ...
    def closed(self, call: Hashable) -> bool: ...
    def counts(self, call: Hashable) -> bool: ...
    def expire(self, now_us: int) -> None: ...
    def live(self, account: str, now_us: int) -> dict[tuple[int, int], int]: ...
    def totals(self, now_us: int) -> dict[tuple[int, int], int]: ...
    def admitted_last_second(self, account: str, now_us: int) -> int: ...
    @property
    def account_count(self) -> int: ...
    @property
    def call_count(self) -> int: ...
