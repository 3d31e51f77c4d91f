"""Further ways to tell events, beside webhooks and mail: other parts of the daemon bring them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from authz.events.messages import SendResult, Told


class Outlet(Protocol):
    """A channel of the outbox with one receiver."""

    #: The channel and the receiver, as deliveries name them.
    channel: str
    target: str
    in_flight_max: int
    #: The longest that `send` takes.
    timeout_seconds: int

    def wants(self, event: str, account_ids: Sequence[str]) -> bool:
        """Say whether an event of that name is told; the accounts are its line, leaf first."""

    async def send(self, told: Told) -> SendResult:
        """Tell one event. It may be told again, under the same id."""

    async def run(self) -> None:
        """Hold what telling needs, until cancelled."""
