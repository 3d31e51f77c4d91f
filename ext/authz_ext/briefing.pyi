"""What the scripts are told of a call, put together from what is the same for many calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

from authz_ext.plans import Plan

@final
class Template:
    """A packed record in which some integers are still to be filled in.

    `places` are (offset, width in bytes, whether it has a sign), in the order of the values.
    """

    def __init__(self, packed: bytes, places: Iterable[tuple[int, int, bool]]) -> None: ...
    def fill(self, *values: int) -> bytes:
        """Return the record with these integers, one a place.

        ValueError if they are too few or too many, OverflowError for one that does not fit.
        """

@final
class Briefing:
    """All that the scripts are told alike of every call of a chain within an hour.

    `valid_from` and `valid_until` bound the store seconds in which the day and month of its limits
    hold; `hour` (since 1970-01-01) is the one that `tombstones` and `filters` are the keys of, and
    `closed_hours` is for how many of them the store remembers settled calls.
    `member_prefix` is the beginning of a call's name among the leases, `accounts` are the chain's,
    leaf first. `limits_of(call_class)` returns every account's packed limits. The places of the
    templates are: `reserve` attempt, second_try, steps, final, denial, used_seconds; `settle`
    attempt, seconds, started_at, call_class, direction.
    """

    def __init__(
        self,
        *,
        valid_from: int,
        valid_until: int,
        hour: int,
        closed_hours: int,
        tombstones: tuple[bytes, ...],
        filters: tuple[bytes, ...],
        member_prefix: bytes,
        accounts: Iterable[str],
        limits_of: Callable[[Any], tuple[bytes, ...]],
        reserve: Template,
        settle: Template,
    ) -> None: ...
    @property
    def valid_from(self) -> int: ...
    @property
    def valid_until(self) -> int: ...
    @property
    def hour(self) -> int: ...
    @property
    def closed_hours(self) -> int: ...
    @property
    def tombstones(self) -> tuple[bytes, ...]: ...
    @property
    def filters(self) -> tuple[bytes, ...]: ...
    def holds(self, at: int) -> bool:
        """Return whether it is right at that store second."""

    def authorize(
        self,
        numbers: Template,
        attempt: int,
        dry_run: bool,
        second_try: bool,
        steps: int,
        memory_full: bool,
        call_class: int,
        call_id: str,
        number: str,
        dialled: str,
        direction: str,
        switch: str,
        rates: bytes,
        legs: bytes,
    ) -> list[bytes]:
        """Return the arguments of an authorize.

        The places of `numbers` are attempt, dry_run, second_try, steps, memory_full.
        """

    def reserve(
        self,
        plan: Plan,
        used_seconds: int,
        answered_at: int,
        is_final: bool,
        denial: int,
        packed_steps: bytes,
        steps: int,
        second_try: bool,
    ) -> list[bytes]:
        """Return the arguments of a reserve of the call, which has used so many seconds."""

    def settle(
        self,
        plan: Plan | None,
        call_id: str,
        seconds: int,
        started_at: int,
        costs: bytes,
        cause: str,
    ) -> list[bytes]:
        """Return the arguments of a settle; without a plan, of a call known to the store only.

        `costs` are of every leg, packed; `cause` is as it stands in the ledger.
        """

def digest_of_call(member: bytes) -> bytes:
    """Return the 16 bytes under which the tombstone of the call of this name is kept."""

def digest_of_request(dialled: str, direction: str, switch: str) -> bytes:
    """Return the 8 bytes that tell a repeated authorize from another one with the same id."""

def pack_tail(number: str, dialled: str, switch: str, rates: bytes) -> bytes:
    """Return the tail of a call's record: its words, then the rates it is pinned to, packed.

    What was dialled is left empty where it is the number.
    """
