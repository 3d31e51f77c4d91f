"""mod_json_cdr against the real listener, engine and store: what is booked, and how often."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from audit_helper import assert_clean_audit
from freeswitch.doors import (
    CDR,
    CDR_BUSY,
    CDR_CALLED_LEG,
    CDR_FORM,
    CDR_REFUSED,
    CDR_UUID,
    LOOKUP_UUID,
    Door,
    Recorded,
    all_recorded,
    cdr,
    lab,
    lookup,
    recorded,
)
from hook_double import Answer, OrderedEngine
from world import World

from authz.config.freeswitch import LookupRule
from authz.hooks.access import Access
from authz.hooks.freeswitch.web import CDR_PATH

MARKS = {"authz_account": "sub", "authz_direction": "outbound", "authz_to": "3001"}


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """An empty business on one kind of store: what differs between them is the engine's."""
    world = await World.start(store_url, tmp_path)
    yield world
    await assert_clean_audit(world.client)
    await world.close()


@pytest.fixture
async def door(world: World) -> AsyncIterator[Door]:
    """A door on the lab's business."""
    door = await lab(world)
    yield door
    await door.close()


def told(answer: Answer) -> Any:
    """Return what a record came to; the switch must not send it again."""
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


async def spent(world: World) -> tuple[int, int]:
    """Return what sub-account and master have paid, in micros."""
    return 10_000_000 - await world.balance("sub"), 10_000_000 - await world.balance("master")


async def test_a_call_from_its_lookup_to_its_record(door: Door, world: World) -> None:
    document = await door.ask()
    marks = {**document.variables, "authz_call": LOOKUP_UUID}
    record = cdr(uuid=LOOKUP_UUID, sip_from_user="15550004", **marks)

    settled = told(await door.report(record))

    assert (settled["call_id"], settled["seconds"], settled["duplicate"]) == (LOOKUP_UUID, 6, False)
    assert await spent(world) == (6_000, 3_000)
    # The switch tries again when an answer gets lost; the agent reports the same call as well.
    assert told(await door.report(record))["duplicate"] is True
    assert (await world.settle(LOOKUP_UUID, 6)).duplicate is True
    assert await spent(world) == (6_000, 3_000)
    assert (await world.state("sub")).calls == 0


async def test_a_call_we_never_saw_is_booked_from_its_record(door: Door, world: World) -> None:
    assert told(await door.report())["seconds"] == 6
    called = told(await door.report(name=CDR_CALLED_LEG))
    assert called["result"] == "ignored: not the charged leg"
    assert told(await door.report())["duplicate"] is True
    assert await spent(world) == (6_000, 3_000)


async def test_one_record_sent_many_times_at_once_is_booked_once(door: Door, world: World) -> None:
    record = cdr()
    answers = [told(one) for one in await asyncio.gather(*(door.report(record) for _ in range(12)))]
    assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 11
    assert await spent(world) == (6_000, 3_000)


@pytest.mark.parametrize("transcript", ["05a", "05b", "05c", "05d", "05f"])
async def test_every_recorded_call_is_charged_once(
    door: Door, world: World, transcript: str
) -> None:
    await door.open(rules=(LookupRule(account="sub", profile="internal"),))
    for request in all_recorded(transcript):
        assert (await door.post(CDR_PATH, request)).status == 200
    assert await spent(world) == {"05a": (6_000, 3_000), "05f": (5_000, 2_500)}.get(
        transcript, (0, 0)
    )


@pytest.mark.parametrize("name", [CDR_BUSY, CDR_REFUSED])
async def test_a_call_without_talk_frees_its_hold(
    door: Door, world: World, name: tuple[str, int]
) -> None:
    uuid = json.loads(recorded(name).body)["variables"]["uuid"]
    await world.granted(uuid, "3001")
    assert told(await door.report(cdr(name, authz_call=uuid, **MARKS)))["seconds"] == 0
    state = await world.state("sub")
    assert (state.calls, state.held, state.balance) == (0, 0, 10_000_000)


async def test_a_form_is_read_in_each_encoding(door: Door, world: World) -> None:
    assert told(await door.report(name=CDR_FORM))["seconds"] == 5
    plain = recorded(CDR)
    for media_type, body in (
        ("application/x-www-form-base64-encoded", b"cdr=" + base64.b64encode(plain.body)),
        ("application/x-www-form-base64-encoded", b"cdr=" + base64.encodebytes(plain.body)),
        ("application/x-www-form-plaintext", b"cdr=" + plain.body),
    ):
        kept = [line for line in plain.headers if not line.startswith("Content-")]
        headers = [*kept, f"Content-Type: {media_type}", f"Content-Length: {len(body)}"]
        assert told(await door.post(CDR_PATH, Recorded(headers, body)))["call_id"] == CDR_UUID
    assert await spent(world) == (11_000, 5_500)


async def test_a_record_may_hold_anything_where_it_does_not_matter(
    door: Door, world: World
) -> None:
    body = recorded(CDR).body.replace(b"FreeSWITCH-lab", b"\xff\xfe\x01")
    body = body.replace(b'"sip_to_user":"3001"', b'"sip_to_user":["3001",{"a":null},"\xc3(\x02"]')
    assert told(await door.report(body))["seconds"] == 6
    assert await spent(world) == (6_000, 3_000)


@pytest.mark.parametrize(
    ("variables", "result"),
    [
        ({"authz_reason": "insufficient_credit"}, "ignored: refused or free: insufficient_credit"),
        ({"authz_reason": "emergency"}, "ignored: refused or free: emergency"),
        ({"authz_call": "another-leg", **MARKS}, "ignored: not the charged leg"),
        ({"direction": "outbound"}, "ignored: not the charged leg"),
        ({"sip_from_user": "x", "billmsec": "0"}, "ignored: never answered, and nobody pays"),
    ],
)
async def test_what_is_not_charged_is_ignored(
    door: Door, world: World, variables: dict[str, str], result: str
) -> None:
    answer = told(await door.report(cdr(**variables)))
    assert answer == {"call_id": CDR_UUID, "result": result}
    assert await spent(world) == (0, 0)


async def test_contexts_of_others_are_none_of_our_business(door: Door, world: World) -> None:
    await door.open(contexts=("authz",))
    assert told(await door.report())["result"] == "ignored: was in none of freeswitch.contexts"
    # A mark is enough: who set it has authorized the leg.
    assert told(await door.report(cdr(authz_call=CDR_UUID, **MARKS)))["seconds"] == 6
    assert await spent(world) == (6_000, 3_000)


async def test_the_part_of_the_way_in_our_context_names_the_number(
    door: Door, world: World
) -> None:
    await door.open(contexts=("authz",))
    tree = json.loads(recorded(CDR).body)
    [part] = tree["callflow"]
    ways = []
    for context, number in (("authorized", "1001"), ("authz", "4001"), ("public", "1234")):
        profile = {**part["caller_profile"], "context": context, "destination_number": number}
        ways.append({**part, "caller_profile": profile})
    tree["callflow"] = [None, {}, *ways]
    assert told(await door.report(json.dumps(tree).encode()))["seconds"] == 6
    call = await world.engine.call("sub", CDR_UUID)
    assert call is not None
    assert call.state == "settled"
    assert await spent(world) == (6_000, 3_000)


@pytest.mark.parametrize(
    ("rounding", "milliseconds", "seconds"),
    [
        ("up", "5000", 5), ("up", "5001", 6), ("half_up", "5499", 5), ("half_up", "5500", 6),
        ("down", "5999", 5), ("up", "1", 1), ("up", "0", 0), ("down", "999", 0),
    ],
)  # fmt: skip
async def test_milliseconds_are_rounded_as_the_setting_says(
    door: Door, rounding: str, milliseconds: str, seconds: int
) -> None:
    await door.open(rounding=rounding)
    assert told(await door.report(cdr(billmsec=milliseconds)))["seconds"] == seconds


async def test_a_charge_can_begin_after_the_answer(door: Door, world: World) -> None:
    uuid = f"{CDR_UUID}#2"
    await world.granted(uuid, "3001")
    ended_us = int(json.loads(recorded(CDR).body)["variables"]["end_uepoch"])
    times = {"end_uepoch": str(ended_us), "authz_started_us": str(ended_us - 2_000_001)}
    record = cdr(authz_call=uuid, **times, **MARKS)
    answer = told(await door.report(record))
    assert (answer["call_id"], answer["seconds"]) == (uuid, 2)
    assert await spent(world) == (2_000, 1_000)
    later = cdr(authz_call=f"{CDR_UUID}#3", authz_started_us=str(ended_us + 9_000_000), **MARKS)
    assert told(await door.report(later))["seconds"] == 0


async def test_a_caller_s_own_uuid_may_look_like_a_later_call(door: Door) -> None:
    # With inbound-use-callid-as-uuid the caller's Call-ID is the uuid.
    record = cdr(uuid="x#2", authz_call="x#2", **MARKS)
    assert told(await door.report(record))["call_id"] == "x#2"


async def test_a_leg_can_go_on_with_the_call_of_another(door: Door, world: World) -> None:
    await world.granted("gone#2", "3001")
    marks = {**MARKS, "authz_call": "gone#2", "direction": "outbound"}
    assert told(await door.report(cdr(**marks)))["result"] == "ignored: not the charged leg"
    answer = told(await door.report(cdr(authz_leg=CDR_UUID, **marks)))
    assert (answer["call_id"], answer["seconds"]) == ("gone#2", 6)
    assert await spent(world) == (6_000, 3_000)


async def test_what_was_settled_otherwise_stays(door: Door, world: World) -> None:
    await world.granted(CDR_UUID, "3001")
    await world.settle(CDR_UUID, 5)
    assert told(await door.report()) == {
        "call_id": CDR_UUID,
        "result": "settled differently",
        "seconds": 5,
    }
    assert await spent(world) == (5_000, 2_500)


async def test_a_lookup_after_the_record_starts_nothing(door: Door, world: World) -> None:
    told(await door.report(cdr(uuid=LOOKUP_UUID, authz_call=LOOKUP_UUID, **MARKS)))
    document = await door.ask(lookup())
    assert document.ending[0] == "respond"
    assert (await world.state("sub")).calls == 0


async def test_an_emergency_call_of_an_outage_costs_nothing(door: Door, world: World) -> None:
    body = recorded(CDR).body.replace(b'"destination_number":"3001"', b'"destination_number":"911"')
    assert told(await door.report(body))["legs"][0]["billing"] == "free"
    assert await spent(world) == (0, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{}", 400), (b"[]", 400), (b"cdr=", 400), (b"cdr=!", 400), (b"\xff", 400),
        (b"[" * 20_000, 400), (b'{"variables":{}}', 400), (b'{"variables":[]}', 400),
        (cdr(uuid=None), 400), (cdr(uuid="white space"), 400), (cdr(uuid="x" * 256), 400),
        (cdr(end_uepoch=None), 400), (cdr(end_uepoch="-1"), 400), (cdr(billmsec="1.5"), 400),
        (cdr(billmsec=""), 400), (cdr(billmsec="9" * 19), 400), (cdr(answer_uepoch="x"), 400),
        (cdr(sip_from_user="unknown"), 404), (cdr(authz_account="nowhere"), 404),
        (b"{" + b" " * 70_000 + b"}", 413),
    ],
)  # fmt: skip
async def test_a_record_that_cannot_be_booked_is_left_to_the_switch(
    door: Door, world: World, body: bytes, status: int
) -> None:
    # At anything but 2xx mod_json_cdr writes the record into its err-log-dir.
    assert (await door.report(body)).status == status
    assert await spent(world) == (0, 0)


@pytest.mark.parametrize(("call_id", "status"), [("full", 503), ("broken", 500), ("unknown", 404)])
async def test_what_is_not_booked_is_never_called_so(door: Door, call_id: str, status: int) -> None:
    await door.open(engine=OrderedEngine())
    answer = await door.report(cdr(uuid=call_id, authz_call=call_id, **MARKS))
    assert answer.status == status


async def test_a_spooled_settle_is_safe(door: Door) -> None:
    await door.open(engine=OrderedEngine())
    answer = told(await door.report(cdr(uuid="spooled", authz_call="spooled", **MARKS)))
    assert answer == {"call_id": "spooled", "settled": False, "spooled": True}


async def test_a_record_of_long_ago_is_left_to_the_office(door: Door, world: World) -> None:
    answer = told(await door.report(cdr(end_uepoch="1700000000000000")))
    assert answer == {"call_id": CDR_UUID, "settled": False, "spooled": True}
    assert await spent(world) == (0, 0)


async def test_the_listener_s_rules_hold(door: Door, world: World) -> None:
    await door.open(access=Access(("another-password",)))
    assert (await door.report()).status == 401
    await door.open(access=Access(("cdrpass",)))
    assert told(await door.report())["seconds"] == 6
    await door.open(access=Access((), ("198.51.100.1",)))
    assert (await door.report()).status == 403
