"""What a process remembers of a call: the rates it is pinned to, and how its legs pay."""

from __future__ import annotations

from typing import Any, final

from authz_ext.rating import Rate

def call_key(account: str, call_id: str) -> str:
    """Return what names a call in this process's memory: account ids hold no colon.

    A text, not a pair: the cyclic garbage collector would walk over one pair a call.
    """

@final
class Plan:
    """One call as this process knows it; `attempt` proves it current to the scripts.

    `call_class`, `direction` and `billings` are members of authz.reasons. `rates` has, per leg,
    the pinned rate, or None for a leg that time does not charge. `in_store` is False for a call
    that was let through without the store; without billings it is priced when it is settled.
    `authorized_at` is Unix seconds. ValueError if rates and billings are not as many, or are
    more than 32.
    """

    def __init__(
        self,
        account: str,
        call_id: str,
        attempt: int,
        call_class: int,
        direction: int,
        number: str,
        dialled: str,
        switch: str,
        rates: tuple[Rate | None, ...],
        billings: tuple[int, ...],
        authorized_at: int,
        in_store: bool = True,
        rate_number: str | None = None,
    ) -> None: ...
    @property
    def key(self) -> str:
        """What `call_key` says of the call."""

    @property
    def account(self) -> str: ...
    @property
    def call_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def call_class(self) -> Any: ...
    @property
    def direction(self) -> Any: ...
    @property
    def number(self) -> str: ...
    @property
    def dialled(self) -> str: ...
    @property
    def switch(self) -> str: ...
    @property
    def rates(self) -> tuple[Rate | None, ...]: ...
    @property
    def billings(self) -> tuple[Any, ...]: ...
    @property
    def authorized_at(self) -> int: ...
    @property
    def in_store(self) -> bool: ...
    @property
    def rate_number(self) -> str | None: ...
    @property
    def is_emergency(self) -> bool:
        """Whether the call is one that nothing may refuse or end."""

    @property
    def is_limited(self) -> bool:
        """Whether credit can cut any leg short."""

    @property
    def limiting_rates(self) -> tuple[tuple[int, Rate], ...]:
        """(leg, rate) of the legs that credit can cut short."""

    @property
    def is_ended_by_rate(self) -> bool:
        """Whether one of these rates ends a call at its greatest cost."""

    def costs(self, seconds: int, answered_at: int) -> tuple[int, ...]:
        """Return what `seconds` of talk cost every leg, in micros."""

    def pack_costs(self, seconds: int, answered_at: int) -> bytes:
        """Return the same as the scripts read it: 8 bytes a leg."""

    def pack_step(self, seconds: int, answered_at: int) -> bytes:
        """Return one step as the scripts read it: its seconds, and what each leg must hold.

        That is never less than one priced increment of a leg that credit can cut short, and
        nothing of any other.
        """

class CallMemory:
    """Plans of a process's latest calls; a forgotten one is read from the store."""

    def __init__(self, calls_max: int) -> None: ...
    def get(self, account: str, call_id: str) -> Plan | None:
        """Return the plan of a call, if remembered."""

    def put(self, plan: Plan) -> None:
        """Remember a plan, forgetting the oldest beyond the bound."""

    def forget(self, account: str, call_id: str) -> Plan | None:
        """Drop a plan: the call has ended, or its record has changed."""
