"""Briefings: what the scripts are told alike of every call of a chain, made once an hour."""

from __future__ import annotations

from functools import partial

from authz.config import Settings
from authz.store import keys
from authz.store.accounts import Chain
from authz.store.constants import Mark
from authz.store.layouts import RESERVE, SETTLE
from authz_ext.briefing import Briefing

_HOUR_SECONDS = 3_600


def closed_hours(settings: Settings) -> int:
    """Return for how many hours the store remembers settled calls."""
    return -(-settings.store.closed_keep_seconds // _HOUR_SECONDS)


def make_briefing(settings: Settings, chain: Chain, now: int) -> Briefing:
    """Return the briefing that holds at store second `now`."""
    hour_keys = chain.hour_keys(now)
    valid_from, valid_until = chain.validity(now)
    calls = settings.calls
    return Briefing(
        valid_from=valid_from,
        valid_until=valid_until,
        hour=hour_keys.hour,
        closed_hours=closed_hours(settings),
        tombstones=hour_keys.tombstones,
        filters=hour_keys.filters,
        member_prefix=keys.call_member(chain.id, ""),
        accounts=chain.ids,
        limits_of=partial(chain.limits, at=now),
        reserve=RESERVE.template(
            "attempt", "second_try", "steps", "final", "denial", "used_seconds",
            valid_from=valid_from,
            valid_until=valid_until,
            legs=len(chain.accounts),
            marks=Mark.NONE,
            uncharged_seconds=-1,
            grace_seconds=calls.grace_seconds,
            life_seconds=calls.sign_of_life_seconds,
        ),
        settle=SETTLE.template(
            "attempt", "seconds", "started_at", "call_class", "direction",
            valid_from=valid_from,
            valid_until=valid_until,
            legs=len(chain.accounts),
            hour=hour_keys.hour,
            closed_hours=closed_hours(settings),
            ring_seconds=calls.ring_seconds + calls.chunk_seconds + calls.grace_seconds,
        ),
    )  # fmt: skip
