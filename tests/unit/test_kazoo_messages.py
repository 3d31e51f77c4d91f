"""Kazoo's messages: read as they come, written as its validators want them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kazoo.ecallmgr import EXAMPLES

from authz.hooks.kazoo import messages
from authz.hooks.kazoo.errors import MalformedMessage
from authz.hooks.kazoo.messages import Header, decode_as, decode_header, encode, read_channel

BODIES: dict[str, type[messages.Body]] = {
    "authz/authz_req": messages.AuthorizeRequest,
    "authz/authz_resp": messages.AuthorizeAnswer,
    "authz/balance_check_req": messages.BalanceRequest,
    "authz/balance_check_resp": messages.BalanceAnswer,
    "rate/req": messages.RateRequest,
    "rate/resp": messages.RateAnswer,
    "call/event CHANNEL_CREATE": messages.CallEvent,
    "call/event CHANNEL_ANSWER": messages.CallEvent,
    "call/event CHANNEL_BRIDGE": messages.CallEvent,
    "call/event CHANNEL_DESTROY": messages.CallEvent,
    "call/query_channels_req": messages.ChannelsRequest,
    "call/query_channels_resp": messages.ChannelsAnswer,
    "notifications/low_balance": messages.LowBalance,
    "notifications/topup": messages.Topup,
}
#: What we write, and Kazoo reads: types as its validators check them.
WRITTEN = [
    name
    for name in BODIES
    if name.endswith(("_resp", "rate/resp", "channels_req")) or name.startswith("notifications")
]
_HEADERS = {wire.encode_name for wire in msgspec.structs.fields(Header)}


@pytest.mark.parametrize("name", BODIES)
def test_every_example_is_read(name: str) -> None:
    example = EXAMPLES[name]
    text = json.dumps(example).encode()
    header = decode_header(text)
    assert header.kind == (example["Event-Category"], example["Event-Name"])
    assert (header.msg_id, header.node) == (example["Msg-ID"], example["Node"])
    body = decode_as(BODIES[name], text)
    for field in msgspec.structs.fields(BODIES[name]):
        if field.encode_name in example and field.name != "amount":
            assert getattr(body, field.name) == example[field.encode_name]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_the_example_again(name: str) -> None:
    example = EXAMPLES[name]
    text = json.dumps(example).encode()
    # A field that is empty is left out, as Kazoo leaves it out.
    written = json.loads(encode(decode_header(text), decode_as(BODIES[name], text)))
    assert written == example
    for field, value in written.items():
        assert type(value) is type(example[field]), field


def test_a_rate_that_is_not_there_is_headers_alone() -> None:
    header = Header(event_category="rate", event_name="resp", msg_id="7")
    assert json.loads(encode(header, messages.RateAnswer())) == {
        "Event-Category": "rate",
        "Event-Name": "resp",
        "Msg-ID": "7",
    }


def test_false_and_zero_are_said_where_kazoo_looks_for_them() -> None:
    header = Header(event_category="authz", event_name="authz_resp", msg_id="7")
    answer = messages.AuthorizeAnswer(call_id="c", is_authorized=False, soft_limit=False)
    document = json.loads(encode(header, answer))
    assert document["Is-Authorized"] is False
    rate = messages.RateAnswer(rate="0", rate_increment=60, rate_nocharge_time=0)
    assert json.loads(encode(header, rate))["Rate-NoCharge-Time"] == 0


def test_numbers_may_be_written_as_text() -> None:
    event = decode_as(
        messages.CallEvent,
        b'{"Call-ID":"c","Billing-Seconds":"67","Timestamp":"63942000000","Unknown":{"a":[1]}}',
    )
    assert (event.billing_seconds, event.timestamp) == (67, 63_942_000_000)


def test_null_is_nothing_and_what_nobody_needs_may_be_anything() -> None:
    event = decode_as(
        messages.CallEvent,
        b'{"Call-ID":"c","Hangup-Cause":null,"Custom-Channel-Vars":null,"Billing-Seconds":67,'
        b'"Disposition":7,"Duration-Seconds":"long","Other-Leg-Call-ID":["x"]}',
    )
    assert event == messages.CallEvent(call_id="c", billing_seconds=67)
    # What is only told for information costs no charge, whatever it is.
    for name in ("Caller-ID-Number", "Request", "Call-Direction", "Custom-Channel-Vars"):
        for value in ("5", "null", "[1]", '{"a":1}', "true", "1.5"):
            text = f'{{"Call-ID":"c","Billing-Seconds":67,"{name}":{value}}}'
            event = decode_as(messages.CallEvent, text.encode())
            assert (event.call_id, event.billing_seconds) == ("c", 67)
    event = decode_as(messages.CallEvent, b'{"Call-ID":"c","Request":4155550100}')
    assert (event.request, event.billing_seconds) == ("4155550100", None)
    header = b'{"Event-Category":"c","Event-Name":"n","Msg-ID":"1","Node":5,"Server-ID":["x"]}'
    assert decode_header(header) == Header(
        event_category="c", event_name="n", msg_id="1", node="5", server_id=""
    )
    # A duration that says nothing is none of 0 seconds.
    for text in (
        b'{"Call-ID":"c","Billing-Seconds":"long"}',
        b'{"Call-ID":"c","Billing-Seconds":"long","Request":null}',
        b'{"Call-ID":null,"Billing-Seconds":67}',
        b'{"Call-ID":5,"Billing-Seconds":67}',
        b'{"Call-ID":["c"],"Billing-Seconds":67}',
        b"null",
    ):
        with pytest.raises(MalformedMessage):
            decode_as(messages.CallEvent, text)


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (5, "5"), (True, "true"), (False, "false"), (None, ""), ({}, ""), ([1], "")],
)
def test_a_channel_variable_is_a_text(value: Any, text: str) -> None:
    event = messages.CallEvent(call_id="c", custom_channel_vars={"Account-ID": value})
    assert event.variable("Account-ID") == text
    assert event.variable("Missing") == ""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b"{",
        b'{"Event-Category":"authz","Event-Name":"authz_req"}',
        b'{"Event-Category":1,"Event-Name":"authz_req","Msg-ID":"1"}',
        b"[" * 100_000,
    ],
)
def test_what_has_no_header_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_header(text)


@given(st.binary())
def test_no_text_raises_anything_else(text: bytes) -> None:
    for kind in (Header, *BODIES.values()):
        with contextlib.suppress(MalformedMessage):
            decode_as(kind, text)


def test_an_error_names_the_field() -> None:
    with pytest.raises(MalformedMessage, match="Accounts"):
        decode_as(messages.BalanceRequest, b'{"Accounts":"all"}')


@pytest.mark.parametrize(
    "fields",
    [
        {
            "Call-Direction": "outbound", "Account-ID": "a", "Answered": True,
            "Other-Leg-Call-ID": "b", "Media-Node": "freeswitch@fs1", "Elapsed-Seconds": 7,
            "Timestamp": 63_942_000_000, "Owner-ID": None,
        },
        {
            "direction": "outbound", "account_id": "a", "answered": "true", "other_leg": "b",
            "node": "freeswitch@fs1", "elapsed_s": "7", "timestamp": "63942000000",
            "is_onhold": False,
        },
    ],
)  # fmt: skip
def test_a_live_channel_is_read_in_both_forms(fields: dict[str, Any]) -> None:
    assert read_channel("c", fields) == messages.Channel(
        call_id="c",
        call_direction="outbound",
        account_id="a",
        other_leg_call_id="b",
        switch_nodename="freeswitch@fs1",
        is_answered=True,
        timestamp=63_942_000_000,
        elapsed_seconds=7,
    )


def test_a_strange_channel_is_refused_by_name() -> None:
    with pytest.raises(MalformedMessage, match="Channels, c"):
        read_channel("c", {"Timestamp": "yesterday"})
