"""Commands to a FreeSWITCH: equal to the recorded ones, and nothing slips into them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from freeswitch import transcripts

from authz.errors import InvalidInput
from authz.hooks.freeswitch import commands

_UUID = "a239983d-a654-4eb3-94bc-c738ca28ca29"
_NOTE = "it has spaces, ünïcode & %25 = ; signs"
_CUT = "sched_hangup"
_CAUSE = "allotted_timeout"
_ANNOUNCEMENT = [
    ("pre_answer", ""),
    ("playback", "tone_stream://%(300,100,480);loops=3"),
    ("respond", "402 Payment Required"),
]


def _recorded() -> set[bytes]:
    return {
        chunk.data
        for name in transcripts.event_socket_names()
        for chunk in transcripts.load(name).chunks
        if chunk.channel in transcripts.load(name).event_sockets and not chunk.from_switch
    }


@pytest.mark.parametrize(
    "data",
    [
        commands.auth("ClueCon"),
        commands.EXIT,
        commands.CONNECT,
        commands.linger(5),
        commands.my_events(),
        commands.background_api("uptime", "11111111-2222-3333-4444-555555555555"),
        commands.api("nosuchcmd foo"),
        commands.api(commands.SHOW_CHANNELS),
        commands.api(commands.CORE_UUID),
        commands.api(commands.PROBE),
        commands.execute("set", "authz_id=sess-9", event_lock=True),
        commands.execute("bridge", "sofia/internal/2001@127.0.0.1:5090", event_lock=True),
        commands.hang_up("OUTGOING_CALL_BARRED"),
    ],
)
def test_commands_are_the_recorded_ones(data: bytes) -> None:
    assert data in _recorded()


@pytest.mark.parametrize(
    "make",
    [
        lambda uuid: commands.execute("enable_heartbeat", "2", uuid=uuid),
        lambda uuid: commands.execute("respond", "402 Payment Required", uuid=uuid),
        lambda uuid: commands.hang_up("OUTGOING_CALL_BARRED", uuid=uuid),
        *(
            lambda uuid, make=make: commands.api(make(uuid))
            for make in (
                commands.uuid_dump,
                commands.uuid_exists,
                commands.sched_del,
                lambda uuid: commands.uuid_transfer(uuid, "1001", "XML", "authorized"),
                lambda uuid: commands.uuid_kill(uuid, "ALLOTTED_TIMEOUT"),
                lambda uuid: commands.uuid_setvar(uuid, "authz_id", "sess-0001"),
                lambda uuid: commands.uuid_setvar(uuid, "authz_note", _NOTE),
                lambda uuid: commands.uuid_setvar(uuid, "execute_on_answer", f"{_CUT} +4 {_CAUSE}"),
                lambda uuid: commands.uuid_setvar_multi(
                    uuid, {"authz_id": "sess-2", "execute_on_answer": f"{_CUT} +3 {_CAUSE}"}
                ),
                lambda uuid: commands.uuid_transfer_inline(uuid, _ANNOUNCEMENT),
                lambda uuid: commands.sched_hangup(30, uuid),
                lambda uuid: commands.sched_kill(20, f"cut-{uuid}", uuid),
                lambda uuid: commands.sched_del(f"cut-{uuid}"),
            )
        ),
    ],
)
def test_commands_for_a_leg_are_the_recorded_ones(make: Callable[[str], bytes]) -> None:
    recorded = _recorded()
    words = {word for line in recorded for word in line.decode().split()}
    uuids = [word for word in words if len(word) == len(_UUID) and word.count("-") == 4]
    assert {make(uuid) for uuid in uuids} & recorded


def test_subscriptions_name_custom_events_last() -> None:
    assert commands.subscribe(["CHANNEL_PARK", "HEARTBEAT"], ["sofia::register", "a::b"]) == (
        b"event json CHANNEL_PARK HEARTBEAT CUSTOM sofia::register a::b\n\n"
    )
    assert commands.subscribe([], ["a::b"]) == b"event json CUSTOM a::b\n\n"
    with pytest.raises(InvalidInput, match="subclasses"):
        commands.subscribe(["CUSTOM", "BACKGROUND_JOB"])
    with pytest.raises(InvalidInput, match="no event"):
        commands.subscribe([])


_HOSTILE = [
    "x\n\napi shutdown",
    "x\napi: shutdown",
    "x\r\n",
    "x y",
    "x\ty",
    "",
    "x;y",
    "x'y",
    'x"y',
    "${system(id)}",
    "$x",
    "x\\ny",
    "x\x00",
    "x\x7f",
    "x\u2028y",
    "x" * 300,
    "a,b",
    "a|b",
    "a^b",
]


@pytest.mark.parametrize("text", _HOSTILE)
def test_a_word_is_a_word(text: str) -> None:
    for make in (
        lambda: commands.uuid_kill(_UUID, text),
        lambda: commands.uuid_kill(text, "USER_BUSY"),
        lambda: commands.uuid_transfer(_UUID, text, "XML", "public"),
        lambda: commands.uuid_transfer(_UUID, "1001", text, "public"),
        lambda: commands.uuid_setvar(_UUID, text, "value"),
        lambda: commands.sched_hangup(5, text),
        lambda: commands.sched_kill(5, text, _UUID),
        lambda: commands.sched_del(text),
        lambda: commands.subscribe([text]),
        lambda: commands.execute(text),
        lambda: commands.execute("set", "a=b", uuid=text or "\n"),
        lambda: commands.hang_up(text),
        lambda: commands.background_api("status", text),
    ):
        with pytest.raises(InvalidInput):
            make()


@pytest.mark.parametrize("text", ["x\n\napi shutdown", "x\ry", "x\x00", "x" * 70_000])
def test_a_line_is_a_line(text: str) -> None:
    for make in (
        lambda: commands.api(text),
        lambda: commands.background_api(text, _UUID),
        lambda: commands.auth(text),
        lambda: commands.execute("set", text),
        lambda: commands.uuid_setvar(_UUID, "a", text),
        lambda: commands.uuid_setvar_multi(_UUID, {"a": text}),
        lambda: commands.uuid_broadcast(_UUID, text),
    ):
        with pytest.raises(InvalidInput):
            make()


@pytest.mark.parametrize("text", ["${system(id)}", "$${password}", "a\\nb", "tail\\"])
def test_a_value_expands_to_nothing_else(text: str) -> None:
    for make in (
        lambda: commands.value("name", text),
        lambda: commands.uuid_setvar(_UUID, "a", text),
        lambda: commands.uuid_setvar_multi(_UUID, {"a": text}),
        lambda: commands.uuid_transfer_inline(_UUID, [("respond", text)]),
    ):
        with pytest.raises(InvalidInput):
            make()


@pytest.mark.parametrize("text", ["a;b", "it's", 'a"b', " a", "^^:a"])
def test_a_list_of_variables_has_only_plain_values(text: str) -> None:
    with pytest.raises(InvalidInput, match="b: "):
        commands.uuid_setvar_multi(_UUID, {"a": "1", "b": text})
    assert commands.uuid_setvar(_UUID, "b", text).endswith(text)


@pytest.mark.parametrize("seconds", [0, -1, 366 * 24 * 3_600 + 1])
def test_nothing_is_scheduled_for_now_or_never(seconds: int) -> None:
    for make in (
        lambda: commands.sched_hangup(seconds, _UUID),
        lambda: commands.sched_kill(seconds, "group", _UUID),
    ):
        with pytest.raises(InvalidInput, match="seconds"):
            make()


@pytest.mark.parametrize("number", ["+442071838750", "*72", "#31#1001", "911", "user@host"])
def test_what_people_dial_is_a_word(number: str) -> None:
    assert f" {number} XML" in commands.uuid_transfer(_UUID, number, "XML", "authorized")


def test_an_empty_value_unsets() -> None:
    assert commands.uuid_setvar(_UUID, "a", "") == f"uuid_setvar {_UUID} a"


@pytest.mark.parametrize(
    "make",
    [
        lambda: commands.uuid_setvar_multi(_UUID, {}),
        lambda: commands.uuid_transfer_inline(_UUID, []),
        lambda: commands.uuid_transfer_inline(_UUID, [("respond", "402 It's off")]),
        lambda: commands.uuid_transfer_inline(_UUID, [("respond", "402^hangup")]),
        lambda: commands.linger(0),
        lambda: commands.uuid_setvar(_UUID, "a=b", "c"),
    ],
)
def test_senseless_commands_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput):
        make()
