"""mod_xml_curl against the real listener, engine and store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from audit_helper import assert_clean_audit
from freeswitch.doors import (
    LOOKUP,
    LOOKUP_ELSEWHERE,
    LOOKUP_UUID,
    Document,
    Door,
    Recorded,
    all_recorded,
    lab,
    lookup,
    recorded,
)
from helpers import until
from hook_double import OrderedEngine
from world import World

from authz.config.freeswitch import Announcement, LookupRule
from authz.config.freeswitch_web import FreeswitchWebSettings
from authz.hooks.access import Access
from authz.hooks.freeswitch.web import DIALPLAN_PATH
from authz.hooks.messages import Limits

ANSWERED = {"Answer_State": "answered", "Event_Date_Timestamp": "1795350929000000"}


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """An empty business on one kind of store: what differs between them is the engine's."""
    world = await World.start(store_url, tmp_path)
    yield world
    await assert_clean_audit(world.client)
    await world.close()


@pytest.fixture
async def door(world: World) -> AsyncIterator[Door]:
    """A door on the lab's business; its calls are settled in the end."""
    door = await lab(world)
    yield door
    await door.close()


async def end(world: World, *call_ids: str) -> None:
    """Settle calls that never were answered."""
    for call_id in call_ids or (LOOKUP_UUID,):
        await world.settle(call_id, 0)


async def test_the_recorded_lookups_are_decided_once(door: Door, world: World) -> None:
    await door.open(contexts=("credit_curl",))
    assert (await door.ask(name=LOOKUP_ELSEWHERE)).is_not_found

    document = await door.ask(name=LOOKUP)

    assert document.context == "credit_curl"
    assert document.variables == {
        "hangup_after_bridge": "true",
        "authz_account": "sub",
        "authz_direction": "outbound",
        "authz_to": "4001",
        "authz_call": "${uuid}",
        "authz_reason": "ok",
        "execute_on_answer": "sched_hangup +7199 allotted_timeout",
        "call_timeout": "180",
        "originate_timeout": "180",
    }
    assert document.ending == ("transfer", "4001 XML authorized")
    assert (await door.ask(name=LOOKUP)).actions == document.actions
    assert (await world.state("sub")).calls == 1
    await end(world)


async def test_one_call_asked_for_many_times_at_once_is_one_call(door: Door, world: World) -> None:
    documents = await asyncio.gather(*(door.ask() for _ in range(12)))
    assert len({str(document.actions) for document in documents}) == 1
    assert documents[0].ending[0] == "transfer"
    assert (await world.state("sub")).calls == 1
    await end(world)


async def test_a_lookup_beyond_every_measure_is_left_to_the_static_dialplan(door: Door) -> None:
    headers, body = recorded(LOOKUP)
    kept = [line for line in headers if not line.startswith("Content-Length")]
    body += b"&variable_x=" + b"x" * 65_536
    request = Recorded([*kept, f"Content-Length: {len(body)}"], body)
    assert (await door.post(DIALPLAN_PATH, request)).status == 413
    assert (
        await door.post(DIALPLAN_PATH, Recorded([*kept, "Content-Length: 0"], b""))
    ).status == 200


@pytest.mark.parametrize("transcript", ["04a", "04b", "04c", "04d", "04e", "04f", "04g", "04i"])
async def test_every_recorded_lookup_gets_a_document(
    door: Door, world: World, transcript: str
) -> None:
    await door.open(contexts=("credit_curl",))
    for request in all_recorded(transcript):
        document = Document(await door.post(DIALPLAN_PATH, request))
        is_ours = b"Hunt-Context=credit_curl" in request.body
        assert document.is_not_found != is_ours
        if is_ours:
            assert document.variables["authz_reason"] == "ok"
            uuid = request.body.partition(b"&Unique-ID=")[2].partition(b"&")[0].decode()
            await end(world, uuid)


@pytest.mark.parametrize(
    ("credit", "cut"), [("0.1", "+99"), ("0.002", "+1"), ("0.0599", "+58"), ("7.5", "+7199")]
)
async def test_the_cut_is_over_before_the_credit_is(
    door: Door, world: World, credit: str, cut: str
) -> None:
    # A second costs 0.001; `+N` cuts up to half a second late, and begun seconds are charged.
    await world.account("poor", credit, parent="master", deck="retail")
    document = await door.ask(lookup(variable_authz_account="poor"))
    assert document.variables["execute_on_answer"] == f"sched_hangup {cut} allotted_timeout"
    await world.settle(LOOKUP_UUID, int(cut) + 1, account="poor")
    assert await world.balance("poor") >= 0


@pytest.mark.parametrize("credit", ["0", "0.0009", "0.001"])
async def test_credit_for_less_than_two_seconds_is_refused(
    door: Door, world: World, credit: str
) -> None:
    await world.account("poor", credit, parent="master", deck="retail")
    document = await door.ask(lookup(variable_authz_account="poor"))
    assert document.actions == [
        ("set", "authz_reason=insufficient_credit"),
        ("respond", "402 Payment Required"),
    ]
    state = await world.state("poor")
    assert (state.calls, state.held) == (0, 0)


@pytest.mark.parametrize(
    ("config", "ending"),
    [
        ({"enabled": False}, ("respond", "403 Forbidden")),
        ({"max_calls": 0}, ("respond", "486 Busy Here")),
        ({"max_calls_per_second": 0}, ("respond", "503 Service Unavailable")),
        ({"blocked_classes": ("unknown",)}, ("respond", "403 Forbidden")),
    ],
)
async def test_a_denial_ends_with_its_own_status(
    door: Door, world: World, config: dict[str, Any], ending: tuple[str, str]
) -> None:
    await world.account("limited", "5", parent="master", deck="retail", **config)
    document = await door.ask(lookup(variable_authz_account="limited"))
    assert document.ending == ending


async def test_a_denial_can_end_with_its_cause_after_an_announcement(
    door: Door, world: World
) -> None:
    await world.account("empty", parent="master", deck="retail")
    announcements = (
        Announcement(reason="insufficient_credit", file="ivr/no_credit.wav"),
        Announcement(reason="*", file="ivr/barred.wav"),
    )
    await door.open(refuse_by="hangup", announcements=announcements)
    document = await door.ask(lookup(variable_authz_account="empty"))
    assert document.actions[1:] == [
        ("pre_answer", ""),
        ("playback", "ivr/no_credit.wav"),
        ("hangup", "OUTGOING_CALL_BARRED"),
    ]
    document = await door.ask(lookup(variable_authz_account="nowhere"))
    assert document.actions[1:3] == [("pre_answer", ""), ("playback", "ivr/barred.wav")]


async def test_who_has_answered_is_refused_by_hanging_up(door: Door, world: World) -> None:
    await world.account("empty", parent="master", deck="retail")
    await door.open(announcements=(Announcement(reason="*", file="sorry.wav"),))
    document = await door.ask(lookup(variable_authz_account="empty", **ANSWERED))
    assert document.actions[1:] == [
        ("playback", "sorry.wav"),
        ("hangup", "OUTGOING_CALL_BARRED"),
    ]


async def test_an_answered_leg_is_cut_and_charged_from_now(door: Door, world: World) -> None:
    document = await door.ask(lookup(**ANSWERED))
    assert ("sched_hangup", "+7199 allotted_timeout") in document.actions
    assert "execute_on_answer" not in document.variables
    assert document.variables["authz_started_us"] == ANSWERED["Event_Date_Timestamp"]
    # Coming by again must neither add a later cut nor forget what has been talked.
    again = await door.ask(lookup(variable_authz_call=LOOKUP_UUID, **ANSWERED))
    assert "sched_hangup" not in dict(again.actions)
    assert "authz_started_us" not in again.variables
    assert again.ending == document.ending
    await end(world)


async def test_another_destination_for_a_running_call_is_refused(door: Door, world: World) -> None:
    await door.ask()
    document = await door.ask(lookup(Hunt_Destination_Number="4002", **ANSWERED))
    assert document.actions == [
        ("set", "authz_reason=call_id_conflict"),
        ("hangup", "CALL_REJECTED"),
    ]
    await end(world)


async def test_the_dial_string_is_filled_in(door: Door, world: World) -> None:
    bridge = "{early=true}[x=${y}]sofia/gateway/{account}/{number}|a/{digits}/{dialled}"
    await door.open(web=FreeswitchWebSettings(bridge=bridge))
    document = await door.ask(lookup(Hunt_Destination_Number="14155550100"))
    assert document.ending == (
        "bridge",
        "{early=true}[x=${y}]sofia/gateway/sub/+14155550100|a/14155550100/14155550100",
    )
    await end(world)


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("1001", "1001 XML authorized"),
        ("1001 inline", "1001 inline authorized"),
        ("1001 XML default", "1001 XML default"),
    ],
)
async def test_a_call_goes_where_its_variable_says(
    door: Door, world: World, destination: str, words: str
) -> None:
    document = await door.ask(
        lookup(variable_authz_destination=destination, variable_authz_direction="inbound")
    )
    assert document.ending == ("transfer", words)
    assert document.variables["authz_direction"] == "inbound"
    assert document.variables["authz_to"] == "4001"
    await end(world)


async def test_a_rule_finds_who_pays(door: Door, world: World) -> None:
    rules = (
        LookupRule(account="nobody-comes-from-there", address="198.51.100.0/24"),
        LookupRule(account="sub", address="127.0.0.0/8", direction="inbound"),
    )
    await door.open(rules=rules)
    document = await door.ask()
    assert (document.variables["authz_account"], document.variables["authz_direction"]) == (
        "sub",
        "inbound",
    )
    await end(world)


@pytest.mark.parametrize(
    "fields",
    [
        {"variable_authz_account": "no such account"},
        {"variable_authz_account": "nowhere"},
        {"variable_authz_direction": "sideways"},
        {"variable_sip_from_user": "somebody"},
    ],
)
async def test_a_call_that_nobody_pays_is_refused(door: Door, fields: dict[str, str]) -> None:
    document = await door.ask(lookup(**fields))
    assert document.actions == [
        ("set", "authz_reason=account_unknown"),
        ("respond", "403 Forbidden"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"variable_authz_account": ""},
        {"variable_authz_account": "nowhere"},
        {"variable_authz_account": "no such account"},
        {"variable_authz_direction": "sideways"},
        {"variable_authz_rate_number": "1" * 129},
        {"variable_authz_destination": "a,b"},
        {"Unique_ID": ""},
        {"Unique_ID": "x" * 300},
    ],
)
async def test_an_emergency_call_passes_whatever_is_wrong(
    door: Door, fields: dict[str, str]
) -> None:
    await door.open(rules=())
    document = await door.ask(lookup(Hunt_Destination_Number="911", **fields))
    assert document.ending == ("transfer", "911 XML authorized")
    assert "execute_on_answer" not in document.variables


@pytest.mark.parametrize(
    "dialled", ["911;phone-context=+1", "9-1-1", "sip:911@host", "911;${system(reboot)}"]
)
async def test_an_emergency_number_is_cleaned_before_it_is_dialled(
    door: Door, world: World, dialled: str
) -> None:
    document = await door.ask(lookup(Hunt_Destination_Number=dialled))
    assert document.ending == ("transfer", "911 XML authorized")
    assert document.variables["authz_to"] == "911"
    await end(world)


@pytest.mark.parametrize(
    "dialled",
    [
        "", "-both", "1 2", "1,sofia/gateway/dear/900", "1|2", "${system(reboot)}", "$1", "1;a=b",
        "4001@elsewhere.example", "../4001", "4001&x", "<4001>", '"4001"', "'4001'", "4" * 129,
        "{absolute_codec_string=x}4", "[x]4", "4^1", "4\\1", "4\n1", "4\x001", "\ud7ff", "١٢٣",
    ],
)  # fmt: skip
async def test_no_caller_writes_into_the_dialplan(door: Door, dialled: str) -> None:
    document = await door.ask(lookup(Hunt_Destination_Number=dialled))
    assert document.actions == [
        ("set", "authz_reason=invalid_number"),
        ("respond", "484 Address Incomplete"),
    ]
    bad = dialled if len(dialled.split()) == 1 else "1 XML default 2"
    assert (await door.ask(lookup(variable_authz_destination=bad))).ending == (
        "respond",
        "484 Address Incomplete",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"Unique_ID": ""},
        {"Unique_ID": "x" * 256},
        {"Unique_ID": "white space"},
        {"variable_authz_rate_number": "1" * 129},
    ],
)
async def test_a_call_that_cannot_be_asked_for_is_refused(
    door: Door, fields: dict[str, str]
) -> None:
    document = await door.ask(lookup(**fields))
    assert document.actions == [
        ("set", "authz_reason=invalid_input"),
        ("respond", "403 Forbidden"),
    ]


async def test_what_only_informs_never_refuses(door: Door, world: World) -> None:
    fields = {"Hunt_Caller_ID_Number": "x" * 999, "FreeSWITCH_Switchname": "a switch"}
    document = await door.ask(lookup(**fields))
    assert document.variables["authz_reason"] == "ok"
    await end(world)


async def test_a_defect_of_ours_is_a_refusal(door: Door) -> None:
    await door.open(engine=OrderedEngine())
    for call_id in ("broken", "full", "wrong"):
        document = await door.ask(lookup(Unique_ID=call_id))
        assert document.actions == [
            ("set", "authz_reason=store_unavailable"),
            ("respond", "503 Service Unavailable"),
        ]


async def test_under_load_new_calls_are_refused_and_emergencies_pass(door: Door) -> None:
    engine = OrderedEngine()
    await door.open(engine=engine, limits=Limits(in_flight_max=1))
    engine.hold("slow")
    slow = asyncio.create_task(door.ask(lookup(Unique_ID="slow")))
    await until(lambda: bool(engine.began))
    refused = await door.ask(lookup(Unique_ID="next"))
    assert refused.actions == [
        ("set", "authz_reason=overloaded"),
        ("respond", "503 Service Unavailable"),
    ]
    emergency = await door.ask(lookup(Unique_ID="emergency", Hunt_Destination_Number="911"))
    assert emergency.ending == ("transfer", "911 XML authorized")
    assert (await door.ask(name=LOOKUP_ELSEWHERE, body=lookup(Hunt_Context="other"))).is_not_found
    engine.release("slow")
    assert (await slow).ending == ("transfer", "4001 XML authorized")


async def test_a_call_that_nothing_limits_is_not_cut(door: Door, world: World) -> None:
    await world.account("observed", parent="master", enabled=False, enforce=False)
    document = await door.ask(lookup(variable_authz_account="observed"))
    assert document.variables["authz_reason"] == "account_disabled"
    assert document.variables["authz_account"] == "observed"
    assert "execute_on_answer" not in document.variables
    assert document.ending == ("transfer", "4001 XML authorized")


async def test_the_listener_s_rules_hold(door: Door, world: World) -> None:
    await door.open(access=Access(("a-token-of-16-chars",), ("127.0.0.1",)))
    assert (await door.post(DIALPLAN_PATH, recorded(LOOKUP))).status == 401
    # What mod_xml_curl makes of gateway-credentials `fs:a-token-of-16-chars`.
    basic = "Authorization: Basic ZnM6YS10b2tlbi1vZi0xNi1jaGFycw=="
    request = recorded(LOOKUP)
    answer = await door.post(DIALPLAN_PATH, request._replace(headers=[*request.headers, basic]))
    assert Document(answer).variables["authz_reason"] == "ok"
    await end(world)
