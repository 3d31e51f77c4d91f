"""Whatever an ecallmgr asks or tells: a valid answer, no exception, and books that balance."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import msgspec
from freeswitch.fast_loop import run_fast
from kazoo.simulation import NODE, Simulation, simulation
from world import UK, US

from authz.hooks.kazoo.encoding import to_gregorian
from authz.hooks.kazoo.messages import AuthorizeRequest, CallEvent, RateRequest
from authz.hooks.kazoo.rating import find_rate
from authz.hooks.kazoo.settling import ChannelSettler

_ROUNDS = 400
_WORDS = {"limits_disabled", "limits_enforced", "hard_limit", "flat_rate", "flat_rate_burst",
          "per_minute"}  # fmt: skip
_TEXTS = ("", " ", "sub", "master", "true", "false", "sms", "mobile", "resource", "per_minute",
          "limits_disabled", "limits_enforced", "flat_rate", US, UK, "911", "+18005551212", "é",
          "\x00", "a\nb", "x" * 300, "0", "-1", "sip:1@2@3", "conference", None, 5, True, [],
          {"a": 1}, 1.5)  # fmt: skip
_NAMES = ("Account-ID", "Reseller-ID", "Resource-ID", "E164-Destination", "Original-Number",
          "Authorizing-ID", "Authorizing-Type", "Global-Resource", "Resource-Type",
          "Account-Billing", "Reseller-Billing", "Ecallmgr-Node")  # fmt: skip


def variables_of(rng: random.Random) -> dict[str, Any]:
    """Return variables of which most, but not all, are as they should be."""
    found: dict[str, Any] = {"Account-ID": "sub", "Reseller-ID": "master", "Resource-ID": "r",
                             "E164-Destination": rng.choice((US, UK))}  # fmt: skip
    for _ in range(rng.randint(0, 4)):
        found[rng.choice(_NAMES)] = rng.choice(_TEXTS)
    return found


def call_id_of(rng: random.Random) -> str:
    return rng.choice((f"c{rng.randint(0, 60)}", "", "with blank", "é", "c" * 300))


async def play(found: Simulation, rng: random.Random) -> None:
    (agent,) = found.kazoo.agents
    settler = ChannelSettler(found.world.engine, agent.settler._dids)
    for _ in range(_ROUNDS):
        request = AuthorizeRequest(
            call_id=call_id_of(rng),
            call_direction=rng.choice(("inbound", "outbound", "sideways", "")),
            request=str(rng.choice(_TEXTS)),
            caller_id_number=str(rng.choice(_TEXTS)),
            custom_channel_vars=variables_of(rng),
        )
        link: Any = rng.choice((found.kazoo, None))
        answer = await agent.authorizer.decide(request, NODE, link)
        told = msgspec.json.decode(msgspec.json.encode(answer))
        assert isinstance(told["Is-Authorized"], bool)
        assert {told["Account-Billing"], told["Reseller-Billing"]} <= _WORDS
        event = CallEvent(
            call_id=call_id_of(rng),
            call_direction=rng.choice(("inbound", "outbound")),
            custom_channel_vars=variables_of(rng),
            billing_seconds=rng.choice((-1, 0, 0, 1, 59, 61, 10**9)),
            timestamp=rng.choice((0, -5, 10**15, to_gregorian(int(time.time())))),
            hangup_cause=str(rng.choice(_TEXTS)),
        )
        # A survivor of a crash knows nothing of the call, and books the same.
        known = agent.book.find(event.call_id) if rng.random() < 0.5 else None
        await settler.settle(event, NODE, known)
        agent.book.end(event.call_id)
        rate = RateRequest(to_did=str(rng.choice(_TEXTS)), account_id=str(rng.choice(_TEXTS)),
                           ratedeck_id=str(rng.choice(_TEXTS)))  # fmt: skip
        await find_rate(found.world.engine.context, rate)


def test_nothing_that_is_asked_or_told_breaks_the_books(
    store_url: str, tmp_path: Path, rng: random.Random
) -> None:
    async def run() -> None:
        async with simulation(store_url, tmp_path, rng, sub="50") as found:
            await found.world.account(
                "sub", parent="master", deck="retail",
                metadata={"kazoo.resource_types": "sms", "kazoo.soft_limit_inbound": "true",
                          "kazoo.inbound_channels_per_did": '{"^.1": 3}'},
            )  # fmt: skip
            await play(found, rng)

    run_fast(run())
