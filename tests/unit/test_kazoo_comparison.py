"""What a difference between jonny5's answer and ours comes from."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from authz.hooks.kazoo.comparison import CAUSES, compare_decisions, compare_rates
from authz.hooks.kazoo.messages import AuthorizeAnswer, RateAnswer
from authz.meters.table import SHADOW_CAUSES

USAGE = "0/0/2/0/0/0"


def answer(**fields: Any) -> AuthorizeAnswer:
    """Return an answer to an outbound per-minute call of a customer, changed by `fields`."""
    usage, to = fields.pop("usage", USAGE), fields.pop("to", "+14155550100")
    known = {
        "call_id": "c1", "is_authorized": True, "soft_limit": False, "account_id": "a",
        "account_billing": "per_minute", "reseller_id": "r", "reseller_billing": "per_minute",
        "call_direction": "outbound",
        "custom_channel_vars": {"Account-Trunk-Usage": usage, "To": to},
        **fields,
    }  # fmt: skip
    return AuthorizeAnswer(**known)


def causes(ours: AuthorizeAnswer, theirs: AuthorizeAnswer) -> set[tuple[str, str, str]]:
    return {(one.field, one.cause, one.defect) for one in compare_decisions(ours, theirs)}


def test_the_table_of_metrics_has_every_cause() -> None:
    assert SHADOW_CAUSES == CAUSES


def test_equal_answers_have_no_difference() -> None:
    assert compare_decisions(answer(), answer()) == ()
    # Trunks without limit, in our spelling and in theirs; the use is another matter.
    ours, theirs = answer(usage="0/0/1000000/0/0/0"), answer(usage="0/0/-1/0/3/4")
    assert compare_decisions(ours, theirs) == ()


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({"account_billing": "flat_rate"}, {"usage": "0/0/2/0/1/1"},
         {("account_billing", "load", "")}),
        ({"account_billing": "flat_rate"}, {"usage": "0/0/1/0/0/0"},
         {("account_billing", "limits", ""), ("Account-Trunk-Usage", "limits", "")}),
        ({}, {"is_authorized": False, "account_billing": "hard_limit"},
         {("is_authorized", "load", ""), ("account_billing", "load", "")}),
        ({"is_authorized": False, "account_billing": "limits_enforced"}, {},
         {("is_authorized", "credit", ""), ("account_billing", "credit", "")}),
        ({}, {"account_billing": "allotment_did_us"}, {("account_billing", "allotment", "")}),
        ({"account_billing": "limits_disabled"}, {}, {("account_billing", "other", "")}),
        ({"usage": ""}, {"is_authorized": False}, {("is_authorized", "account", "")}),
        ({}, {"soft_limit": True}, {("soft_limit", "defect", "B29")}),
        ({"is_authorized": False},
         {"is_authorized": False, "soft_limit": True, "reseller_billing": "limits_enforced"},
         {("soft_limit", "defect", "B4"), ("reseller_billing", "credit", "")}),
        ({"account_billing": "flat_rate", "reseller_id": "a"},
         {"reseller_id": "a", "reseller_billing": "limits_enforced"},
         {("account_billing", "defect", "B3"), ("reseller_billing", "defect", "B28")}),
        ({"to": "112", "account_billing": "limits_disabled"}, {},
         {("account_billing", "defect", "B21")}),
        ({"to": "911", "account_billing": "limits_disabled"}, {"account_billing": "hard_limit"},
         {("account_billing", "defect", "B5")}),
        ({"to": "+18335550100"}, {"call_direction": "inbound", "account_billing": "flat_rate"},
         {("account_billing", "defect", "B21")}),
    ],
)  # fmt: skip
def test_causes(
    ours: dict[str, Any], theirs: dict[str, Any], expected: set[tuple[str, str, str]]
) -> None:
    assert causes(answer(**ours), answer(**theirs)) == expected


@pytest.mark.parametrize("usage", ["", "1/2", "a/b/c/d/e/f", "1/2/3/4/5/" + "9" * 99, "/////"])
def test_nonsense_in_a_usage_string_says_nothing(usage: str) -> None:
    assert compare_decisions(answer(), answer(usage=usage)) == ()


def test_rates_are_compared_by_value() -> None:
    ours = RateAnswer(rate="185", rate_increment=6, rate_minimum="30", rate_nocharge_time=0,
                      surcharge="0")  # fmt: skip
    theirs = RateAnswer(rate="185.0", rate_increment=6, rate_minimum="30")
    assert compare_rates(ours, theirs) == ()
    ours.discount_percentage, theirs.discount_percentage = 10, Decimal("10.0")
    assert compare_rates(ours, theirs) == ()
    ours.discount_percentage = theirs.discount_percentage = None
    theirs.rate = "190"
    (one,) = compare_rates(ours, theirs)
    assert (one.field, one.ours, one.theirs, one.cause) == ("rate", "185", "190", "rate")
    assert compare_rates(None, theirs)[0].ours == ""
