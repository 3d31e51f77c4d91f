"""Frames and events of the event socket: every recorded byte, however it is split."""

from __future__ import annotations

import random

import pytest
from freeswitch import transcripts
from freeswitch.replay import steps_of

from authz.errors import ProtocolError
from authz.hooks.freeswitch import frames
from authz.hooks.freeswitch.events import (
    Event,
    event_of_frame,
    event_of_headers,
    event_of_json,
    event_of_plain,
    values_of_text,
)
from authz.hooks.freeswitch.frames import Frame, FrameReader, parse_headers

_SMALL_BYTES = 12_000


def _recorded(name: str) -> list[tuple[str, bytes]]:
    transcript = transcripts.load(name)
    return [(one, transcript.said(one, by_switch=True)) for one in transcript.event_sockets]


def _fed(pieces: list[bytes]) -> list[Frame]:
    reader = FrameReader()
    read = [frame for piece in pieces for frame in reader.feed(piece)]
    assert reader.failure is None
    assert reader.buffered_bytes == 0
    return read


def _shown(read: list[Frame]) -> list[tuple[dict[str, str], bytes]]:
    return [(frame.headers, frame.body) for frame in read]


def _events(name: str, channel: str = "esl") -> list[Event]:
    said = transcripts.load(name).said(channel, by_switch=True)
    return [
        event_of_frame(frame)
        for frame in FrameReader().feed(said)
        if frame.content_type.startswith("text/event")
    ]


@pytest.mark.parametrize("name", transcripts.event_socket_names())
def test_every_transcript_is_read_alike_however_it_is_split(name: str, rng: random.Random) -> None:
    transcript = transcripts.load(name)
    for channel, said in _recorded(name):
        whole = _fed([said])
        # The replay cuts frames in a way of its own.
        twin = [step for step in steps_of(transcript, channel) if hasattr(step, "data")]
        assert len(whole) == len(twin)
        cuts = sorted(rng.choices(range(len(said) + 1), k=50))
        pieces = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
        assert _shown(_fed(pieces)) == _shown(whole)


def test_small_transcripts_are_read_byte_by_byte() -> None:
    count = 0
    for name in transcripts.event_socket_names():
        for _, said in _recorded(name):
            if len(said) < _SMALL_BYTES:
                count += 1
                assert _shown(_fed([bytes([byte]) for byte in said])) == _shown(_fed([said]))
    assert count > 5


@pytest.mark.parametrize("name", transcripts.event_socket_names())
def test_every_recorded_event_is_one(name: str) -> None:
    for _, said in _recorded(name):
        for frame in FrameReader().feed(said):
            if frame.content_type.startswith("text/event"):
                event = event_of_frame(frame)
                assert event.name
                assert event.core_uuid
                assert event.timestamp_us


def test_a_reader_holds_no_more_than_an_unfinished_frame() -> None:
    reader = FrameReader()
    frame = b"Content-Type: api/response\nContent-Length: 5\n\nhello"
    for _ in range(1_000):
        assert len(reader.feed(frame + frame[:20])) == 1
        assert reader.buffered_bytes == 20
        assert reader.feed(frame[20:])[0].text == "hello"
        assert reader.buffered_bytes == 0


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"Content-Length: x\n\n", "Content-Length of 'x'"),
        (b"Content-Length: -1\n\n", "Content-Length of '-1'"),
        (b"Content-Length: 1 \n\n", "Content-Length"),
        (b"Content-Length: \xd9\xa3\n\n", "Content-Length"),
        (b"Content-Length: " + b"9" * 5_000 + b"\n\n", "Content-Length"),
        (b"Content-Length: 16777217\n\n", "a body of 16777217 bytes"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n\n\n", "no header line"),
        (b"\x16\x03\x01\x02\n\n", "no header line"),
    ],
)
def test_what_is_no_frame_is_named(data: bytes, complaint: str) -> None:
    good = b"Content-Type: auth/request\n\n"
    for pieces in ([good + data], [good, data], [bytes([byte]) for byte in good + data]):
        reader = FrameReader()
        read = [frame for piece in pieces for frame in reader.feed(piece)]
        assert [frame.content_type for frame in read] == [frames.AUTH_REQUEST]
        assert complaint in str(reader.failure)
        assert reader.feed(good) == []
        assert reader.buffered_bytes == 0


def test_a_header_block_without_end_is_refused_before_it_fills_the_memory() -> None:
    reader = FrameReader(header_bytes_max=1_000)
    for _ in range(100):
        reader.feed(b"X: " + b"y" * 50 + b"\n")
    assert "more than 1000 bytes" in str(reader.failure)
    assert reader.buffered_bytes == 0


def test_a_long_header_block_that_comes_slowly_costs_no_second_look() -> None:
    reader = FrameReader()
    for _ in range(20_000):
        assert reader.feed(b"Name: value\n") == []
    assert reader._seen >= reader.buffered_bytes - 1


def test_empty_and_odd_header_lines() -> None:
    assert parse_headers(b"A: b\nC:\nD: \nvariable_a:b: c") == {
        "A": "b",
        "C": "",
        "D": "",
        "variable_a:b": "c",
    }


def test_a_hang_up_says_its_cause_twice_and_means_it_once() -> None:
    ends = [event for event in _events("01c") if event.name == "CHANNEL_HANGUP_COMPLETE"]
    assert [event.get("Hangup-Cause") for event in ends] == ["ALLOTTED_TIMEOUT", "NORMAL_CLEARING"]
    assert ends[0].integer_variable("billmsec") == 3_520
    assert ends[0].integer_variable("billsec") == 4


def test_the_two_formats_say_the_same_where_plain_is_not_lossy() -> None:
    plain = _last_by_leg(_events("09d"))
    json = _last_by_leg(_events("09d", "esl-json"))
    assert plain.keys() == json.keys()
    for leg, event in json.items():
        differing = {name for name in event if event.values(name) != plain[leg].values(name)}
        # The literal `%41` is decoded by plain, and every event has its own moment.
        assert differing - {"variable_authz_q"} <= {
            "Event-Sequence",
            "variable_nolocal:authz_bonly",
        }
        assert event.variables.keys() == plain[leg].variables.keys()


def _last_by_leg(events: list[Event]) -> dict[str, Event]:
    ends = [event for event in events if event.name == "CHANNEL_HANGUP_COMPLETE"]
    return {event.unique_id: event for event in ends}


def test_json_keeps_what_plain_loses() -> None:
    (plain,) = [one for one in _last_by_leg(_events("09d")).values() if one.variable("authz_q")]
    json = _last_by_leg(_events("09d", "esl-json"))[plain.unique_id]
    assert json.variable("authz_q") == 'it\'s "q" ; , | & %41 +plus ünï'
    assert plain.variable("authz_q") == 'it\'s "q" ; , | & A +plus ünï'
    assert json.values("variable_authz_list") == ("one", "two", "three")
    assert plain.values("variable_authz_list") == ("one", "two", "three")
    assert json.variable("authz_list") == "three"
    assert json.variables["nolocal:authz_bonly"] == "42"


def test_an_event_with_a_body_of_its_own() -> None:
    jobs = [event for event in _events("01a", "esl2") if event.name == "BACKGROUND_JOB"]
    assert [job.body for job in jobs[1:]] == ["-ERR nosuchcmd Command not found!\n", "116\n"]
    assert jobs[2].get("Job-UUID") == "11111111-2222-3333-4444-555555555555"
    custom = [event for event in _events("01a", "esl2") if event.name == "CUSTOM"]
    assert [(event.subclass, event.body) for event in custom] == [("credit::test", "hello")]
    assert custom[0].get("X-A") == "b c%d"


def test_a_connect_reply_is_an_event() -> None:
    said = transcripts.load("03a").said("osock", by_switch=True)
    event = event_of_headers(FrameReader().feed(said)[0])
    assert event.name == "CHANNEL_DATA"
    assert event.unique_id == "2afd139f-84e8-4b7b-bc9d-863a275fcad7"
    assert event.get("Reply-Text") == "+OK\n"
    assert event.get("Socket-Mode") == "async"
    assert event.variable("sip_from_uri") == "15550002@127.0.0.1"
    assert "\r\nm=audio" in event.variable("switch_r_sdp")


@pytest.mark.parametrize(
    "data",
    [
        b'{"Event-Name":"X","Caller-Caller-ID-Name":"\xff\xfe caf\xe9"}',
        b'{"Event-Name":"X","Caller-Caller-ID-Name":"a\x01b\tc"}',
        b'{"Event-Name":"X","Caller-Caller-ID-Name":"\\ud800"}',
        b'{"Event-Name":"X","Caller-Caller-ID-Name":null,"n":5,"o":{"p":1}}',
        b'{"Event-Name":"X","Caller-Caller-ID-Name":["a",1]}',
    ],
)
def test_what_a_caller_writes_does_not_hide_an_event(data: bytes) -> None:
    event = event_of_json(data)
    assert event.name == "X"
    assert event.get("Caller-Caller-ID-Name")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b"[" * 100_000, b"\xff"])
def test_what_is_no_event_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="event"):
        event_of_json(data)


def test_a_plain_event_without_sense_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="no header line"):
        event_of_plain(b"Event-Name: X\nnonsense\n\n")


def test_what_is_missing_reads_as_nothing() -> None:
    event = event_of_json(b'{"Event-Name":"X","variable_a":"","variable_list":[]}')
    assert event.get("no") == ""
    assert event.get("no", "default") == "default"
    assert event.values("no") == ()
    assert event.get("variable_list", "none") == "none"
    assert event.integer("variable_a") is None
    assert event.integer("no") is None
    assert "variable_a" in event
    assert event.unique_id == event.subclass == event.core_uuid == ""
    assert event.timestamp_us is None
    assert event.variables == {"a": "", "list": ""}


@pytest.mark.parametrize("text", ["-1", "1.5", "\u0663", "1" * 21, " 1", "0x1"])
def test_a_number_is_digits(text: str) -> None:
    assert event_of_json(b'{"variable_n":"%s"}' % text.encode()).integer_variable("n") is None


def test_values_of_text() -> None:
    assert values_of_text("one") == ("one",)
    assert values_of_text("ARRAY::one|:two") == ("one", "two")
