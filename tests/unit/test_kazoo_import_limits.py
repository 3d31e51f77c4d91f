"""Kazoo's limits and account documents become accounts: Kazoo's own rules of which limit holds."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from authz.engine.accounts import patched
from authz.errors import InvalidInput
from authz.hooks.kazoo.imports.accounts import Reading, read_accounts
from authz.hooks.kazoo.imports.documents import read_documents
from authz.model import AccountConfig, AutoRecharge, LowBalance, Trunks
from authz.store.accounts import check_config

CUSTOMER = "4f1c0de2a9b84d7e9a5b6c7d8e9f0a1b"
RESELLER = "9a8b7c6d5e4f43210fedcba987654321"
LIMITS = {"_id": "limits", "pvt_type": "limits", "pvt_account_id": CUSTOMER}


def read_text(text: str, **words: Any) -> Reading:
    return read_accounts(read_documents("limits.json", text.encode()), **words)


def read(*documents: Any) -> Reading:
    return read_text(json.dumps(list(documents)))


def config(**fields: Any) -> AccountConfig:
    """Return what an account is after limits with these fields."""
    reading = read({**LIMITS, **fields})
    assert reading.refused == 0
    (one,) = reading.accounts
    found = patched(AccountConfig(), one.changes)
    check_config(found)
    return found


def test_limits_that_say_nothing_are_prepaid_without_trunks() -> None:
    assert config() == AccountConfig()


@pytest.mark.parametrize(
    ("fields", "trunks"),
    [
        ({"twoway_trunks": 2}, Trunks(twoway=2)),
        ({"inbound_trunks": "3", "outbound_trunks": 4.0}, Trunks(inbound=3, outbound=4)),
        ({"twoway_trunks": 5, "pvt_twoway_trunks": 2}, Trunks(twoway=2)),
        ({"twoway_trunks": 2, "pvt_twoway_trunks": 5}, Trunks(twoway=2)),
        ({"twoway_trunks": 2, "pvt_twoway_trunks": -1}, Trunks(twoway=2)),
        ({"twoway_trunks": 2, "pvt_twoway_trunks": 0}, Trunks()),
        ({"twoway_trunks": -1}, Trunks(twoway=1_000_000)),
        ({"burst_trunks": -1}, Trunks(burst=-1)),
    ],
)
def test_trunks(fields: dict[str, Any], trunks: Trunks) -> None:
    assert config(**fields).trunks == trunks


@pytest.mark.parametrize(
    ("fields", "max_calls"),
    [
        ({"calls": -1}, None),
        ({"calls": 0}, 0),
        ({"calls": 5, "pvt_calls": -1}, 5),
        ({"calls": 5, "pvt_calls": 3}, 3),
        ({"pvt_calls": 3}, 3),
        ({"calls": 5, "resource_consuming_calls": 2}, 2),
    ],
)
def test_calls(fields: dict[str, Any], max_calls: int | None) -> None:
    assert config(**fields).max_calls == max_calls


@pytest.mark.parametrize(
    ("fields", "per_minute", "credit_limit"),
    [
        ({"allow_prepay": False}, False, "0"),
        ({"allow_prepay": True, "pvt_allow_prepay": False}, False, "0"),
        ({"pvt_max_postpay_amount": -20.5}, True, "0"),
        ({"pvt_allow_postpay": True, "pvt_max_postpay_amount": -20.5}, True, "20.5"),
        ({"pvt_allow_postpay": "true", "pvt_max_postpay_amount": 200_000}, True, "20"),
        ({"allow_postpay": True, "pvt_max_postpay_amount": 20.5}, True, "0"),
        ({"allow_prepay": False, "pvt_allow_postpay": True}, True, "0"),
    ],
)
def test_credit(fields: dict[str, Any], per_minute: bool, credit_limit: str) -> None:
    found = config(**fields)
    assert (found.per_minute, found.credit_limit) == (per_minute, credit_limit)


def test_what_has_no_field_is_metadata_that_the_decisions_read() -> None:
    found = config(
        pvt_enabled=False,
        pvt_soft_limit_inbound=False,
        pvt_soft_limit_outbound=True,
        authz_resource_types=["video", "sms"],
        pvt_inbound_channels_per_did_rules={"^\\+1800": 4, ".*": -1},
    )
    assert found.metadata == {
        "kazoo.enabled": "false",
        "kazoo.soft_limit_outbound": "true",
        "kazoo.resource_types": "video,sms",
        "kazoo.inbound_channels_per_did": '{".*":-1,"^\\\\+1800":4}',
    }
    again = patched(found, read(LIMITS).accounts[0].changes)
    assert again == AccountConfig()


def test_what_is_not_known_here_is_remarked() -> None:
    reading = read(
        {
            **LIMITS, "pvt_reserve_amount": 1.0,
            "allotments": {"inbound_did_us": {}, "did_us": {"amount": 600}},
            "pvt_discounts": {"mars": {"percentage": 5}, "did_us": {"percentage": 5}},
            "pvt_bundled_inbound_trunks": "users",
        }
    )  # fmt: skip
    assert reading.refused == 0
    assert [remark.field for remark in reading.remarks] == [
        "pvt_bundled_inbound_trunks", "pvt_reserve_amount", "pvt_discounts.mars", "allotments",
    ]  # fmt: skip
    assert reading.remarks[-1].value == "did_us,inbound_did_us"


def test_discounts_are_by_class() -> None:
    found = config(
        pvt_discounts={
            "tollfree_us": {"percentage": 1},
            "toll_us": {"percentage": "2"},
            "emergency": {"percentage": 100},
            "caribbean": {"percentage": 4.00},
            "did_us": {"percentage": 12.5},
            "international": {"percentage": "6.25"},
            "unknown": {"percentage": 0},
        }
    )
    assert found.discounts == {
        "tollfree": 1, "premium": 2, "emergency": 100, "caribbean": 4, "national": Decimal("12.5"),
        "international": Decimal("6.25"), "satellite": Decimal("6.25"),
    }  # fmt: skip
    again = patched(found, read(LIMITS).accounts[0].changes)
    assert again == AccountConfig()


def test_a_discount_of_a_fraction_is_taken_as_written_and_remarked() -> None:
    reading = read({**LIMITS, "pvt_discounts": {"did_us": {"percentage": 12.5}, "unknown": {}}})
    assert [(one.field, one.value, one.refuses) for one in reading.remarks] == [
        ("pvt_discounts.did_us.percentage", "12.5", False)
    ]


def test_account_documents_give_parent_recharge_and_alerts() -> None:
    account = {
        "_id": CUSTOMER, "pvt_type": "account", "pvt_reseller_id": RESELLER, "name": "Acme",
        "timezone": "America/Toronto", "topup": {"amount": 25, "threshold": 5.5},
        "notifications": {"low_balance": {"enabled": True, "threshold": 10.25}},
    }  # fmt: skip
    reseller = {"_id": RESELLER, "pvt_type": "account", "pvt_reseller_id": RESELLER}
    reading = read(account, {**LIMITS, "twoway_trunks": 2, "pvt_soft_limit_inbound": True},
                   reseller, {"_id": "x", "pvt_type": "user"})  # fmt: skip
    assert (reading.refused, reading.others) == (0, 1)
    assert [(one.id, one.parent) for one in reading.accounts] == [
        (RESELLER, ""), (CUSTOMER, RESELLER),
    ]  # fmt: skip
    found = patched(AccountConfig(), reading.accounts[1].changes)
    assert found.auto_recharge == AutoRecharge(threshold="5.5", amount="25")
    assert found.low_balance == LowBalance(threshold="10.25", repeat_hours=24)
    assert found.timezone == "America/Toronto"
    assert found.trunks.twoway == 2
    assert found.metadata == {"name": "Acme", "kazoo.soft_limit_inbound": "true"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"twoway_trunks": "many"}, "twoway_trunks"),
        ({"pvt_discounts": ["did_us"]}, "pvt_discounts"),
        ({"pvt_discounts": {"did_us": 5}}, "pvt_discounts.did_us"),
        ({"pvt_discounts": {"did_us": {"percentage": "x"}}}, "pvt_discounts.did_us.percentage"),
        ({"pvt_discounts": {"did_us": {"percentage": True}}}, "pvt_discounts.did_us.percentage"),
        ({"pvt_discounts": {"did_us": {"percentage": 101}}}, "pvt_discounts.did_us.percentage"),
        ({"pvt_discounts": {"did_us": {"percentage": -1}}}, "pvt_discounts.did_us.percentage"),
        ({"pvt_discounts": {"did_us": {"percentage": 0.125}}}, "pvt_discounts.did_us.percentage"),
        ({"twoway_trunks": 1.5}, "twoway_trunks"),
        ({"twoway_trunks": True}, "twoway_trunks"),
        ({"twoway_trunks": 10**9}, "twoway_trunks"),
        ({"calls": 10**30}, "calls"),
        ({"calls": "1e999999999"}, "calls"),
        ({"calls": "1.00000000000000000000000000001"}, "calls"),
        ({"allow_prepay": "maybe"}, "allow_prepay"),
        ({"pvt_max_postpay_amount": "12"}, "pvt_max_postpay_amount"),
        ({"pvt_max_postpay_amount": 10**20}, "pvt_max_postpay_amount"),
        ({"authz_resource_types": "video"}, "authz_resource_types"),
        ({"authz_resource_types": ["a,b"]}, "authz_resource_types"),
        ({"pvt_inbound_channels_per_did_rules": {"(": 1}}, "pvt_inbound_channels_per_did_rules"),
        ({"pvt_inbound_channels_per_did_rules": {"x": 9**9}}, "pvt_inbound_channels_per_did_rules"),
        ({"pvt_account_id": "no id!"}, "pvt_account_id"),
        ({"pvt_account_id": None}, "pvt_account_id"),
    ],
)
def test_bad_documents_name_place_and_field(fields: dict[str, Any], field: str) -> None:
    reading = read({"pvt_type": "user"}, {**LIMITS, **fields})
    assert reading.accounts == ()
    (remark,) = reading.remarks
    assert (remark.place, remark.field, remark.refuses) == ("limits.json, document 2", field, True)


def test_two_limits_of_one_account_and_circles_of_resellers_are_refused() -> None:
    assert read(LIMITS, LIMITS).remarks[0].reason == (
        "limits.json, document 1 is a limits document of the same account"
    )
    circle = [
        {"_id": one, "pvt_type": "account", "pvt_reseller_id": other}
        for one, other in ((CUSTOMER, RESELLER), (RESELLER, CUSTOMER))
    ]
    reading = read(*circle)
    assert (reading.accounts, reading.refused) == ((), 2)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"data": {"twoway_trunks": 2, "id": "limits"}, "status": "success"}),
        json.dumps({"rows": [{"doc": None}, {"id": "l", "doc": {**LIMITS, "twoway_trunks": 2}}]}),
        json.dumps({"docs": [{**LIMITS, "twoway_trunks": 2}]}),
        json.dumps({**LIMITS, "twoway_trunks": 2}) + "\n\n" + json.dumps({"pvt_type": "user"}),
        "\ufeff" + json.dumps([[{**LIMITS, "twoway_trunks": 2}]]),
    ],
)
def test_every_wrapping_is_understood(text: str) -> None:
    (one,) = read_text(text, account_id=CUSTOMER, reseller_id=RESELLER).accounts
    assert (one.id, one.parent, one.changes["trunks"]["twoway"]) == (CUSTOMER, RESELLER, 2)


@pytest.mark.parametrize(
    ("text", "place"),
    [("", "limits.json"), ("{", "limits.json"), ("[1]", "limits.json"), ("[" * 100_000, "limits"),
     ('{"calls": Infinity}', "limits.json"), ('{"a":1}\n{"b":\n', "limits.json, line 2")],
)  # fmt: skip
def test_what_is_no_json_document_is_an_error_with_its_place(text: str, place: str) -> None:
    with pytest.raises(InvalidInput, match=place):
        read_text(text)


def test_numbers_of_any_size_are_refused_before_they_take_memory() -> None:
    text = '{"pvt_type": "limits", "pvt_account_id": "a", "calls": 1e999999999}'
    (remark,) = read_text(text).remarks
    assert (remark.field, remark.refuses) == ("calls", True)


def test_the_apis_account_is_known_by_its_realm() -> None:
    account = {"id": CUSTOMER, "realm": "acme.example", "reseller_id": RESELLER, "enabled": False}
    (one,) = read_text(json.dumps({"data": account})).accounts
    assert (one.id, one.parent, one.changes) == (CUSTOMER, RESELLER, {"enabled": False})
    assert read({**account, "enabled": True}).accounts[0].changes == {"enabled": True}
