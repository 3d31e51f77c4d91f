"""The load test's reader of answers against plain Python: the same answers, wherever reads end.

Of bodies it may leave any to the general parser; what it does read, that one reads alike.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadtest.answers import AnswerReader, scan
from loadtest.errors import LoadTestError
from loadtest.wire import Decision, read_decision

GRANT = (
    b'{"call_id":"c1","allowed":true,"reason":"ok","class":"national","number":"+14155550100",'
    b'"seconds":60,"final":false,"extend_at":45,"ring_seconds":180,"legs":[{"account":"sub",'
    b'"billing":"per_minute","rate":"0.01","held":"0.01","available":"9.99"},{"account":"top",'
    b'"billing":"trunk","rate":"0","held":"0","available":"250"}]}'
)
UNLIMITED = GRANT.replace(b'"seconds":60', b'"seconds":null')
DENIAL = (
    b'{"call_id":"c1","allowed":false,"reason":"insufficient_credit","account":"sub",'
    b'"class":"national","sip_status":402,"hangup_cause":"OUTGOING_CALL_BARRED","detail":"none"}'
)
PROBLEM = b'{"type":"about:blank","title":"Busy","status":503,"reason":"overloaded"}'
BODIES = (GRANT, UNLIMITED, DENIAL, PROBLEM, b'{"settled":true}', b"{}", b"", b"x" * 70_000)


def answer(status: int, body: bytes, length: bytes = b"Content-Length: ") -> bytes:
    return b"HTTP/1.1 %d X\r\nDate: x\r\n%b%d\r\n\r\n%b" % (status, length, len(body), body)


def cut_plainly(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the answers that are whole in `data`, and the rest; ValueError for what is none."""
    answers = []
    while (head_end := data.find(b"\r\n\r\n")) >= 0:
        line, *headers = data[:head_end].decode("latin-1").split("\r\n")
        version, status, *_ = line.split(" ")
        lengths = [value for name, value in map(split_header, headers) if name == "content-length"]
        (length,) = lengths
        if not (version.startswith("HTTP/1.") and len(version) == 8 and len(status) == 3):
            raise ValueError
        end = head_end + 4 + int(length)
        if end > len(data):
            break
        answers.append((int(status), data[head_end + 4 : end]))
        data = data[end:]
    return answers, data


def split_header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value


def read(reader: AnswerReader, stream: bytes, sizes: list[int]) -> list[tuple[int, bytes]]:
    """Return what a reader cuts out of a stream that comes in pieces of these sizes."""
    found = []
    for size in [*sizes, len(stream)]:
        found += reader.feed(stream[:size])
        stream = stream[size:]
    return found


ANSWERS = st.tuples(st.integers(100, 999), st.sampled_from(BODIES) | st.binary(max_size=300))


@given(st.lists(ANSWERS, max_size=12), st.lists(st.integers(0, 700), max_size=60))
@example([(200, GRANT)] * 3, [1] * 900)
def test_answers_are_cut_apart_wherever_the_reads_end(
    answers: list[tuple[int, bytes]], sizes: list[int]
) -> None:
    stream = b"".join(answer(*one) for one in answers)

    assert read(AnswerReader(), stream, sizes) == answers
    assert cut_plainly(stream) == (answers, b"")


HEAD_PIECES = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 503 Busy", b"HTTP/1.1 20 OK", b"200 OK"),
        *(b"HTTP/2 200 OK", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"Content-Length: 2", b"{}"),
        *(b"content-length:2", b"CONTENT-LENGTH:   2", b"Content-Length: -2", b"Date: now"),
        *(b"Content-Length: ", b"Content-Length: 2x", b"Content-Length : 2", b":", b" "),
    ]
)


@given(st.lists(HEAD_PIECES, max_size=14).map(b"".join), st.lists(st.integers(0, 40), max_size=9))
@example(answer(200, b"{}", b"content-length:"), [])
@example(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", [20])
def test_what_it_reads_a_plain_parser_reads_alike(stream: bytes, sizes: list[int]) -> None:
    try:
        found = read(AnswerReader(), stream, sizes)
    except LoadTestError:
        return

    answers, _ = cut_plainly(stream)
    assert found == answers


@given(st.lists(ANSWERS, min_size=1, max_size=3), st.data())
def test_an_answer_that_is_cut_off_is_not_told(
    answers: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(answer(*one) for one in answers)
    end = data.draw(st.integers(0, len(stream) - 1))

    assert AnswerReader().feed(stream[:end]) == cut_plainly(stream[:end])[0]
    assert len(AnswerReader().feed(stream[:end])) < len(answers)


# --- Bodies ----------------------------------------------------------------------------------


def scanned(body: bytes) -> Decision | None:
    found = scan(body)
    return None if found is None else Decision(*found)


@pytest.mark.parametrize("body", [GRANT, UNLIMITED, DENIAL, PROBLEM, b'{"settled":true}', b"{}"])
def test_what_the_daemon_writes_is_read_without_the_general_parser(body: bytes) -> None:
    assert scanned(body) == read_decision(200, body) is not None


MEMBERS = ("allowed", "reason", "seconds", "extend_at", "legs", "x", "Allowed", "seconds ")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 200)
    | st.sampled_from([10**17, 10**18 - 1, 10**18, 2**63 - 1, 2**63, 1.5, 60.0, 1e300, -0.0])
    | st.text(max_size=6)
    | st.sampled_from(["ok", 'a"b', "\\", "\n", "é", "}", "]", "\x7f"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
TYPED = st.fixed_dictionaries(
    {},
    optional={
        "allowed": st.booleans(), "reason": st.text("abc_", max_size=9),
        "seconds": st.none() | st.integers(0, 10**6), "extend_at": st.integers(0, 10**6),
        "legs": VALUES,
    },
)  # fmt: skip
DOCUMENTS = TYPED | st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=6) | VALUES


@given(DOCUMENTS, st.booleans(), st.booleans())
def test_a_body_is_read_as_the_general_parser_does(
    document: Any, is_compact: bool, is_ascii: bool
) -> None:
    separators = (",", ":") if is_compact else None
    body = json.dumps(document, separators=separators, ensure_ascii=is_ascii).encode()

    found = scanned(body)

    assert found is None or found == read_decision(200, body)


@given(TYPED.filter(lambda document: "legs" not in document))
def test_plain_decisions_never_need_the_general_parser(document: Any) -> None:
    body = json.dumps(document, separators=(",", ":")).encode()

    assert scanned(body) == read_decision(200, body) is not None


@given(
    st.sampled_from([GRANT, UNLIMITED, DENIAL, PROBLEM]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)), max_size=3),
)
@example(GRANT, [(len(GRANT), 0, b" ")])
@example(UNLIMITED, [(UNLIMITED.index(b'"seconds"'), 0, b'"seconds":7,')])
@example(GRANT, [(0, 1, b"")])
@example(GRANT, [(len(GRANT) - 1, 1, b"")])
@example(GRANT, [(1, 0, b'"allowed":false,')])
@example(GRANT, [(GRANT.index(b"60"), 0, b"0")])
@example(GRANT, [(GRANT.index(b"ok"), 0, b"\xff")])
def test_a_damaged_body_is_never_taken_for_another(
    body: bytes, damages: list[tuple[int, int, bytes]]
) -> None:
    for place, left_out, put_in in damages:
        body = body[:place] + put_in + body[place + left_out :]

    found = scanned(body)

    assert found is None or found == read_decision(200, body)


def test_deep_values_are_left_to_the_general_parser() -> None:
    assert scan(b'{"x":[[[[[1]]]]]}') is not None
    assert scan(b'{"x":' + b"[" * 100_000) is None
    assert scan(b'{"x":' + b"[" * 100 + b"]" * 100 + b"}") is None


# --- What is no answer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no answer in HTTP/1"),
        (b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", "no answer in HTTP/1"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "no Content-Length"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
            "no Content-Length",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "two lengths"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_100_000, "no end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n", "no end"),
    ],
)
def test_what_cannot_be_cut_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(LoadTestError, match=complaint):
        AnswerReader().feed(data)
