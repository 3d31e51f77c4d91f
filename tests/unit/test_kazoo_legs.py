"""What a channel of Kazoo's is: number, payer, billing words, limits kept in metadata."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz.hooks.kazoo.calls import CallBook, LiveCall, new_call
from authz.hooks.kazoo.excuses import (
    excuses_by_limits,
    excuses_by_words,
    excuses_of_ended,
    is_let_through,
    is_refused,
)
from authz.hooks.kazoo.legs import Leg, read_leg
from authz.hooks.kazoo.limits import NO_LIMITS, limits_of
from authz.hooks.kazoo.messages import AuthorizeRequest, CallEvent
from authz.hooks.kazoo.midcall import cut_seconds
from authz.hooks.kazoo.trunks import trunk_usage
from authz.hooks.kazoo.words import refusal_word
from authz.model import AccountConfig, Trunks
from authz.reasons import REASONS, Excuse
from authz.store.accounts import Account, Chain
from authz.store.layouts import ACCOUNT_STATE

NODE = "ecallmgr@node1"


def leg_of(direction: str = "outbound", request: str = "1@host", **variables: Any) -> Leg:
    named = {name.replace("_", "-"): value for name, value in variables.items()}
    message = AuthorizeRequest(
        call_id="c1", call_direction=direction, request=request, custom_channel_vars=named
    )
    return read_leg(message, NODE)


def account(account_id: str = "sub", **config: Any) -> Account:
    return Account(account_id, 1, AccountConfig(**config))


@pytest.mark.parametrize(
    ("variables", "request_", "number"),
    [
        ({"E164_Destination": "+1", "Original_Number": "2"}, "3@host", "+1"),
        ({"Original_Number": "2"}, "3@host", "2"),
        ({}, "3@host", "3"),
        ({}, "3", "3"),
        ({}, "", ""),
        ({}, "9" * 500 + "@host", "9" * 128),
    ],
)
def test_the_number_that_is_dialled(variables: dict[str, str], request_: str, number: str) -> None:
    assert leg_of(request=request_, **variables).to == number


@pytest.mark.parametrize(
    ("text", "account_id"),
    [("4f1c0de2", "4f1c0de2"), ("", ""), ("a:b", ""), ("../x", ""), ("a\n", ""), ("x" * 65, "")],
)
def test_only_what_can_be_an_account_is_one(text: str, account_id: str) -> None:
    assert leg_of(Account_ID=text).account == account_id


def test_a_channel_belongs_to_its_own_ecallmgr() -> None:
    assert leg_of().node == NODE
    assert leg_of(Ecallmgr_Node="ecallmgr@other").node == "ecallmgr@other"
    assert leg_of(Ecallmgr_Node="with blank").node == "kazoo"
    assert len(leg_of(Ecallmgr_Node="n" * 200).node) == 64


@pytest.mark.parametrize(
    ("direction", "variables", "request_", "is_asked"),
    [
        ("outbound", {"Resource_ID": "r"}, "1@h", True),
        ("outbound", {}, "1@h", False),
        ("outbound", {"Resource_ID": "r", "Global_Resource": "false"}, "1@h", False),
        ("outbound", {"Resource_ID": "r", "Global_Resource": False}, "1@h", False),
        ("outbound", {"Resource_ID": "r", "Authorizing_Type": "mobile"}, "1@h", False),
        ("outbound", {"Resource_ID": "r"}, "conference@h", False),
        ("inbound", {}, "1@h", True),
        ("inbound", {"Authorizing_ID": "d", "Authorizing_Type": "device"}, "1@h", False),
        ("inbound", {"Authorizing_ID": "d", "Authorizing_Type": "resource"}, "1@h", True),
    ],
)
def test_what_ecallmgr_asks_about(
    direction: str, variables: dict[str, Any], request_: str, is_asked: bool
) -> None:
    assert leg_of(direction, request_, **variables).is_asked_about is is_asked


def test_an_event_is_read_as_a_question_is() -> None:
    variables = {"Account-ID": "sub", "Account-Billing": "per_minute"}
    event = CallEvent(call_id="c1", call_direction="inbound", custom_channel_vars=variables)
    leg = read_leg(event, NODE)
    assert (leg.account, leg.account_billing, leg.direction) == ("sub", "per_minute", "inbound")
    assert leg.is_readable
    for call_id in ("", "a b", "é", "c" * 256):
        assert not read_leg(CallEvent(call_id=call_id), NODE).is_readable


CHAIN = Chain(
    "0",
    (
        account("sub", parent="master", metadata={"kazoo.resource_types": "sms"}),
        account("master", metadata={"kazoo.enabled": "false"}),
    ),
    None,
)


def test_whom_limits_documents_excuse() -> None:
    assert excuses_by_limits(CHAIN, leg_of(Account_ID="sub")) == {"master": Excuse.LIMITS}
    excused = {"sub": Excuse.PAYMENT, "master": Excuse.LIMITS}
    assert excuses_by_limits(CHAIN, leg_of(Account_ID="sub", Resource_Type="sms")) == excused


@pytest.mark.parametrize(
    ("account_word", "reseller_word", "excused"),
    [
        ("per_minute", "per_minute", set()),
        ("flat_rate", "limits_enforced", {"master"}),
        # A soft limit of the account: only its reseller pays.
        ("limits_enforced", "per_minute", {"sub"}),
        ("hard_limit", "limits_enforced", {"sub", "master"}),
        ("limits_disabled", "flat_rate_burst", {"sub"}),
        ("limits_disabled", "limits_disabled", {"sub", "master"}),
        # jonny5 has let it through on included minutes.
        ("allotment_did_us", "per_minute", {"sub"}),
        # A word that nobody knows excuses nobody.
        ("limits", "per_minute", set()),
        # Nobody could be asked: the limits documents say it.
        ("", "", {"master"}),
        ("per_minute", "", {"master"}),
        ("", "per_minute", set()),
    ],
)
def test_whom_an_ended_channel_excuses(
    account_word: str, reseller_word: str, excused: set[str]
) -> None:
    leg = leg_of(
        Account_ID="sub",
        Reseller_ID="master",
        Account_Billing=account_word,
        Reseller_Billing=reseller_word,
    )
    assert excuses_of_ended(leg, CHAIN).keys() == excused
    # Without the store only the words are known.
    known = excused if account_word and reseller_word else set()
    assert excuses_of_ended(leg, None).keys() == known


def test_an_account_that_is_its_own_reseller_goes_by_its_own_word() -> None:
    assert excuses_by_words("own", "per_minute", "own", "limits_disabled") == {}
    assert excuses_by_words("own", "limits_disabled", "", "") == {"own": Excuse.LIMITS}


@pytest.mark.parametrize(
    ("account_word", "reseller_word", "is_let", "is_refusal"),
    [
        ("per_minute", "", True, False),
        ("limits_disabled", "limits_disabled", True, False),
        ("limits_enforced", "flat_rate_burst", True, False),
        ("allotment_did_us", "allotment_did_us", True, False),
        ("limits_enforced", "hard_limit", False, True),
        ("", "", False, False),
    ],
)
def test_what_became_of_a_channel(
    account_word: str, reseller_word: str, is_let: bool, is_refusal: bool
) -> None:
    assert is_let_through(account_word, reseller_word) is is_let
    assert is_refused(account_word, reseller_word) is is_refusal


def test_limits_in_metadata() -> None:
    assert limits_of(account()) is NO_LIMITS
    rules = json.dumps({"^\\+2": -1, "^\\+1": 3, "^\\+12": 0, "^\\+3": -7})
    limits = limits_of(
        account(
            metadata={
                "kazoo.enabled": " False",
                "kazoo.resource_types": "sms, ,video",
                "kazoo.soft_limit_inbound": "TRUE",
                "kazoo.inbound_channels_per_did": rules,
            }
        )
    )
    assert limits.excuse("whatever") is Excuse.LIMITS
    assert limits.resource_types == {"sms", "video"}
    assert (limits.is_soft("inbound"), limits.is_soft("outbound")) == (True, False)
    # The first expression in the order of its text decides.
    found = [limits.did_calls_max(number) for number in ("+1999", "+1299", "+2", "+3", "+4")]
    assert found == [3, 3, None, 0, None]


@pytest.mark.parametrize("text", ["no json", '{"(": 1}', '{"1": "x"}', "[1]", "[" * 5_000])
def test_limits_that_cannot_be_read_are_told_of(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    limits = limits_of(account(f"a{len(text)}", metadata={"kazoo.inbound_channels_per_did": text}))
    assert limits.did_rules == ()
    assert "kazoo_limits_unreadable" in caplog.messages


def test_trunk_usage_leaves_the_decided_call_out() -> None:
    holder = account(trunks=Trunks(inbound=1, outbound=2, twoway=3, burst=-1))
    state = ACCOUNT_STATE.unpack(ACCOUNT_STATE.pack(trunks_inbound=4, trunks_outbound=0))
    assert trunk_usage(holder, state, "flat_rate", "inbound") == "1/2/3/-1/3/0"
    assert trunk_usage(holder, state, "flat_rate_burst", "outbound") == "1/2/3/-1/4/0"
    assert trunk_usage(holder, state, "per_minute", "inbound") == "1/2/3/-1/4/0"


def test_every_reason_has_a_word() -> None:
    hard = {name for name in REASONS if refusal_word(name) == "hard_limit"}
    assert hard == {"max_calls_exceeded", "max_class_calls_exceeded", "call_rate_exceeded"}


@pytest.mark.parametrize("granted", [0, 1, 2, 4, 7, 8, 60, 7_200])
def test_a_call_is_cut_before_its_grant_ends(granted: int) -> None:
    assert granted - 2 <= cut_seconds(granted) <= granted
    assert cut_seconds(granted) < granted or granted == 0


class _NoLink:
    zone = "local"
    is_up = False

    async def publish_hangup(self, call_id: str) -> bool:
        return False

    async def query_channels(self, seconds: float | None = None) -> list[Any]:
        return []


def call_of(call_id: str) -> LiveCall:
    message = AuthorizeRequest(call_id=call_id)
    return new_call(read_leg(message, NODE), "+1", _NoLink(), 0.0, {})


def test_a_book_is_bounded_and_remembers_ends() -> None:
    book = CallBook(2)
    first = call_of("c1")
    assert [book.add(first), book.add(call_of("c2")), book.add(call_of("c3"))] == [
        True,
        True,
        False,
    ]
    assert book.is_full
    assert book.end("c1") is first
    assert (book.get("c1"), book.find("c1")) == (None, first)
    assert not book.add(call_of("c1"))
    # What a second process is told of the same end changes nothing.
    assert book.end("c1") is first
    assert book.end("never-seen") is None
    assert book.has_ended("never-seen")
