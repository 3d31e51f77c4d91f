"""The agent and the CDR door see one call: by its last event and by its record, as FreeSWITCH sent
both, they settle the same call with the same seconds."""

from __future__ import annotations

from typing import Any

import pytest
from freeswitch.transcripts import load

from authz.hooks.freeswitch import variables
from authz.hooks.freeswitch.cdr import Cdr, read_cdr
from authz.hooks.freeswitch.cdr_settle import CdrRules, Ignored, settle_of
from authz.hooks.freeswitch.charged_call import ended_us, restore_call, talk_seconds
from authz.hooks.freeswitch.durations import Rounding
from authz.hooks.freeswitch.events import Event, event_of_frame
from authz.hooks.freeswitch.frames import FrameReader
from authz.model import SettleRequest

MARKS = {
    variables.ACCOUNT: "acme",
    variables.DIRECTION: "outbound",
    variables.TO: "3001",
    variables.REASON: "ok",
}


def last_events(transcript: str) -> dict[str, Event]:
    """Return the CHANNEL_HANGUP_COMPLETE of every leg."""
    reader = FrameReader()
    events = [
        event_of_frame(frame)
        for frame in reader.feed(load(transcript).said("esl", by_switch=True))
        if frame.content_type.startswith("text/event")
    ]
    return {event.unique_id: event for event in events if event.name == "CHANNEL_HANGUP_COMPLETE"}


def records(transcript: str) -> list[Event]:
    """Return the legs of the CDRs of a transcript."""
    bodies = [
        chunk.data.partition(b"\r\n\r\n")[2]
        for chunk in load(transcript).chunks
        if chunk.channel == "http" and chunk.from_switch
    ]
    return [read_cdr(body).leg for body in bodies]


def with_variables(event: Event, words: dict[str, str]) -> Event:
    """Return an event of a leg that has these variables as well."""
    named = {f"variable_{name}": value for name, value in event.variables.items()}
    headers: dict[str, Any] = {
        name: event.get(name)
        for name in ("Unique-ID", "Call-Direction", "Caller-Channel-Answered-Time",
                     "Caller-Channel-Hangup-Time", "Event-Date-Timestamp", "Hangup-Cause")
        if name in event
    }  # fmt: skip
    return Event({**headers, **named, **{f"variable_{name}": one for name, one in words.items()}})


@pytest.mark.parametrize("rounding", ["up", "half_up", "down"])
@pytest.mark.parametrize("started_ago_us", [None, 3_500_000, -1_000_000])
@pytest.mark.parametrize("transcript", ["05a", "05b", "05c", "05d", "05f"])
def test_both_settle_the_same(
    transcript: str, started_ago_us: int | None, rounding: Rounding
) -> None:
    events = last_events(transcript)
    compared = 0
    for record in records(transcript):
        uuid = record.unique_id
        event = events[uuid]
        marks = {**MARKS, variables.CALL: uuid}
        if started_ago_us is not None and record.integer_variable("answer_uepoch"):
            marks[variables.STARTED_US] = str(ended_us(event) - started_ago_us)
        found = settle_of_leg(with_variables(record, marks), rounding)
        hangup = with_variables(event, marks)
        call = restore_call(hangup, uuid)
        assert call is not None
        assert isinstance(found, SettleRequest)
        assert found.call_id == call.call_id
        assert found.seconds == talk_seconds(call, hangup, rounding)
        assert found.ended_at == ended_us(hangup) // 1_000_000
        assert (found.account, found.direction, found.to) == (call.account, "outbound", call.to)
        compared += 1
    assert compared > 0


def settle_of_leg(leg: Event, rounding: Rounding) -> SettleRequest | Ignored:
    """Return the settle of a record that is its leg alone."""
    return settle_of(Cdr((leg,)), CdrRules(("public",), lambda _: None, rounding))
