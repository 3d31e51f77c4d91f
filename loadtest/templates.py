"""Requests of calls, made before the run as far as they can be: only the call id is missing."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from loadtest.plan import CallKind
from loadtest.wire import request_start

#: Most calls that are drawn before a run; a longer run takes them in turn, again and again.
POOL_LENGTH_MAX: Final = 32_768
#: After the generator's own start of a call id come so many hexadecimal digits.
COUNTER_DIGITS: Final = 8
#: What follows the call id in a body; before the last brace of the last two come the seconds.
AUTHORIZE_END: Final = b'"}'
USED: Final = b'","used_seconds":'
SECONDS: Final = b'","seconds":'
#: JSON allows spaces before a number; so the length of every body is known before.
SECONDS_DIGITS: Final = 7
SECONDS_MAX: Final = 10**SECONDS_DIGITS - 1


class Template(NamedTuple):
    """One call to place: the heads of its requests up to the call id, and how long it talks."""

    authorize_start: bytes
    reserve_start: bytes
    settle_start: bytes
    #: 0: nobody answers.
    talk_seconds: int
    extends: bool
    emergency: bool


def draw(
    calls: Sequence[CallKind], length: int, call_id_bytes: int, rng: random.Random
) -> list[Template]:
    """Return a pool of so many calls in the proportions of the mix."""
    maker = _Maker(call_id_bytes, rng)
    weights = [call.weight for call in calls]
    return [maker.template(kind) for kind in rng.choices(calls, weights, k=length)]


class _Maker:
    """Makes templates; what only depends on the account is made once."""

    def __init__(self, call_id_bytes: int, rng: random.Random) -> None:
        self._rng = rng
        self._call_id_bytes = call_id_bytes
        self._starts: dict[str, tuple[bytes, bytes]] = {}

    def template(self, kind: CallKind) -> Template:
        rng = self._rng
        account = rng.choice(kind.accounts)
        body: dict[str, object] = {"account": account, "to": fill(rng.choice(kind.to), rng)}
        if kind.direction != "outbound":
            body["direction"] = kind.direction
        if kind.ask_seconds is not None:
            body["seconds"] = kind.ask_seconds
        starts = self._starts.get(account)
        if starts is None:
            starts = self._starts[account] = (
                self._start("/v1/reserve", {"account": account}, len(USED) + SECONDS_DIGITS + 1),
                self._start("/v1/settle", {"account": account}, len(SECONDS) + SECONDS_DIGITS + 1),
            )
        return Template(
            self._start("/v1/authorize", body, len(AUTHORIZE_END)),
            *starts,
            talk_seconds=0 if rng.random() < kind.unanswered else rng.choice(kind.talk_seconds),
            extends=kind.ask_seconds is None,
            emergency=kind.emergency,
        )

    def _start(self, path: str, body: dict[str, object], end_bytes: int) -> bytes:
        start = msgspec.json.encode(body)[:-1] + b',"call_id":"'
        return request_start(path, start, self._call_id_bytes + end_bytes)


def fill(pattern: str, rng: random.Random) -> str:
    """Return a number with a digit for every x."""
    return re.sub("x", lambda _: rng.choice("0123456789"), pattern)
