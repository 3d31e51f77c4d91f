"""How Kazoo writes keys, times and bodies, and what the AMQP codec makes of strange ones."""

from __future__ import annotations

import datetime
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, decode, encode, header

from authz.hooks.kazoo.encoding import (
    BODY_BYTES_MAX,
    Microseconds,
    decode_body,
    encode_key,
    from_gregorian,
    install_readers,
    read_timestamp,
    to_gregorian,
)
from authz.hooks.kazoo.errors import MalformedMessage
from authz.hooks.kazoo.replies import Target, target_of


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("a7d0c9f2-3b1e_X", "a7d0c9f2-3b1e_X"),
        ("1b2c3d4e@198.51.100.7", "1b2c3d4e%40198%2E51%2E100%2E7"),
        ("a b~c/d", "a+b%7Ec%2Fd"),
        ("#*", "%23%2A"),
        ("ü", "%C3%BC"),
        ("", ""),
    ],
)
def test_a_call_id_becomes_one_word_of_a_routing_key(word: str, key: str) -> None:
    assert encode_key(word) == key


@given(st.text())
def test_no_call_id_breaks_out_of_its_word(word: str) -> None:
    surrogates = any("\ud800" <= one <= "\udfff" for one in word)
    if not surrogates:
        assert set(encode_key(word)).isdisjoint(".*# ")


def test_kazoo_counts_from_the_year_0() -> None:
    assert to_gregorian(1_774_832_800) == 63_942_052_000
    assert from_gregorian(63_942_052_000) == 1_774_832_800


@given(st.binary(min_size=8, max_size=8))
def test_no_timestamp_is_unreadable(value: bytes) -> None:
    consumed, moment = read_timestamp(value)
    assert consumed == 8
    assert moment.tzinfo is datetime.UTC


@pytest.mark.parametrize("per_second", [1, 1_000, 1_000_000, 1_000_000_000])
def test_timestamps_are_read_in_any_unit(per_second: int) -> None:
    moment = datetime.datetime(2026, 3, 30, 1, 6, 40, tzinfo=datetime.UTC)
    number = int(moment.timestamp()) * per_second
    assert read_timestamp(number.to_bytes(8, "big")) == (8, moment)


def test_our_timestamps_are_in_microseconds() -> None:
    moment = Microseconds(2026, 3, 30, 1, 6, 40, 123_456, tzinfo=datetime.UTC)
    wire = encode.timestamp(moment)
    assert int.from_bytes(wire, "big") == moment.timestamp() == 1_774_832_800_123_456
    assert read_timestamp(wire) == (8, moment)


def test_the_codec_reads_what_is_neither_a_time_nor_a_text() -> None:
    install_readers()
    properties = commands.Basic.Properties(
        content_type="application/json", timestamp=Microseconds.now(datetime.UTC)
    )
    frame = header.ContentHeader(body_size=2, properties=properties).marshal()
    frame = frame.replace(b"application/json", b"application/\xff\xfe\xfd\xfc")
    read = header.ContentHeader()
    read.unmarshal(frame)
    assert read.properties.content_type is not None
    assert read.properties.content_type.startswith("application/\ufffd")
    assert decode.field_table(b"\0\0\0\x0a\x01tT" + b"\xff" * 8)[0]


def test_a_body_may_be_compressed() -> None:
    assert decode_body(b"{}", None) == b"{}"
    assert decode_body(gzip.compress(b"{}"), "gzip") == b"{}"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(b"{}", "br", id="unknown"),
        pytest.param(b"{}", "gzip", id="not compressed"),
        pytest.param(zlib.compress(b"{}"), "gzip", id="compressed otherwise"),
        pytest.param(gzip.compress(b"{}" * 100)[:-12], "gzip", id="cut off"),
        pytest.param(gzip.compress(b" " * (BODY_BYTES_MAX + 1)), "gzip", id="too large inside"),
        pytest.param(b" " * (BODY_BYTES_MAX + 1), None, id="too large"),
        pytest.param(b"", "gzip", id="empty"),
    ],
)
def test_other_bodies_are_refused(body: bytes, encoding: str | None) -> None:
    with pytest.raises(MalformedMessage):
        decode_body(body, encoding)


@pytest.mark.parametrize(
    ("server_id", "target"),
    [
        ("ecallmgr@a-<0.1.0>-7c", Target("ecallmgr@a-<0.1.0>-7c", {})),
        ("pid://<0.7.0>/queue/x", Target("queue/x", {"Deliver-To-PID": "<0.7.0>"})),
        ("", None),
        ("pid://<0.7.0>", None),
        ("pid://<0.7.0>/", None),
        ("x" * 256, None),
    ],
)
def test_where_an_answer_goes(server_id: str, target: Target | None) -> None:
    assert target_of(server_id) == target
