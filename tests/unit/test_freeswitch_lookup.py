"""Whose call it is: variables first, then the first rule that fits."""

from __future__ import annotations

from typing import Any

import pytest

from authz.config.freeswitch import (
    Announcement,
    FreeswitchSettings,
    LookupRule,
    SwitchSettings,
    check_freeswitch,
)
from authz.errors import ConfigError
from authz.hooks.freeswitch.charged_call import NEVER_US, Phase, restore_call, talk_seconds
from authz.hooks.freeswitch.events import Event
from authz.hooks.freeswitch.lookup import Lookup, Payer

UUID = "b636e0f1-ec64-49a6-b8df-e2ffffc26fc3"


def channel(**words: str) -> Event:
    """Return a channel with these variables; `Caller_…` are headers."""
    headers: dict[str, Any] = {}
    for name, value in words.items():
        is_header = name.startswith("Caller_")
        headers[name.replace("_", "-") if is_header else f"variable_{name}"] = value
    return Event(headers)


@pytest.mark.parametrize(
    ("rule", "words", "payer"),
    [
        ({"account": "acme", "user": "1000"}, {"user_name": "1000"}, Payer("acme", "outbound")),
        ({"account": "acme", "user": "1000"}, {"sip_from_user": "1000"}, None),
        ({"account": "{user}", "domain": "pbx"}, {"user_name": "u1", "domain_name": "pbx"},
         Payer("u1", "outbound")),
        ({"account": "{user}", "domain": "pbx"}, {"domain_name": "pbx"}, None),
        ({"account": "trunk", "address": "10.0.0.0/8"}, {"sip_network_ip": "10.1.2.3"},
         Payer("trunk", "outbound")),
        ({"account": "trunk", "address": "10.0.0.0/8"}, {"sip_network_ip": "no address"}, None),
        ({"account": "trunk", "address": "10.0.0.0/8"}, {"sip_network_ip": "192.0.2.1"}, None),
        ({"account": "did", "gateway": "carrier", "direction": "inbound"},
         {"sip_gateway": "carrier"}, Payer("did", "inbound")),
        ({"account": "did", "gateway": "carrier", "direction": "inbound"},
         {"sip_gateway": "carrier", "authz_direction": "outbound"}, Payer("did", "outbound")),
        ({"account": "d{destination}", "destination": "1415*"},
         {"Caller_Destination_Number": "14155550100"}, Payer("d14155550100", "outbound")),
        ({"account": "d", "destination": "1415"}, {"Caller_Destination_Number": "14155"}, None),
        ({"account": "p", "profile": "internal", "context": "authz"},
         {"sofia_profile_name": "internal", "Caller_Context": "authz"}, Payer("p", "outbound")),
    ],
)  # fmt: skip
def test_a_rule_fits_as_a_whole(
    rule: dict[str, Any], words: dict[str, str], payer: Payer | None
) -> None:
    assert Lookup([LookupRule(**rule)]).find(channel(**words)) == payer


def test_the_first_rule_that_fits_decides() -> None:
    rules = [LookupRule(account="a", context="x"), LookupRule(account="b", context="x")]
    found = Lookup(rules).find(channel(Caller_Context="x"))
    assert found == Payer("a", "outbound")


@pytest.mark.parametrize("account", ["two words", "-", "a:b", "x" * 65, "a\n"])
def test_what_is_no_account_pays_nothing(account: str) -> None:
    rules = [LookupRule(account="fallback", context="x")]
    assert Lookup(rules).find(channel(authz_account=account, Caller_Context="x")) is None
    named = [LookupRule(account="{from_user}", context="x")]
    assert Lookup(named).find(channel(sip_from_user=account, Caller_Context="x")) is None


def test_a_direction_that_is_none_makes_nobody_pay() -> None:
    assert Lookup([]).find(channel(authz_account="a", authz_direction="sideways")) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"switches": (SwitchSettings(name="a", host="x"),) * 2}, "two switches are called a"),
        ({"rules": (LookupRule(account="a"),)}, "no condition"),
        ({"rules": (LookupRule(account="{nobody}", user="u"),)}, "none of address"),
        ({"rules": (LookupRule(account="a", address="10.0.0.1/8"),)}, "host bits"),
        ({"outbound_listen": "127.0.0.1:8084"}, "name the switches"),
        ({"outbound_listen": "0.0.0.0:8084",
          "switches": (SwitchSettings(name="a", host="x"),)}, "outbound_allow"),
        ({"announcements": (Announcement(reason="poor", file="x.wav"),)}, "no reason 'poor'"),
    ],
)  # fmt: skip
def test_settings_that_contradict_themselves_are_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_freeswitch(FreeswitchSettings(**settings))


def test_a_leg_is_found_again_by_its_variables() -> None:
    call = restore_call(
        channel(
            authz_call=f"{UUID}#3", authz_account="sub", authz_to="14155550100",
            authz_direction="inbound", authz_started_us="7000000",
        ), UUID,
    )  # fmt: skip
    assert call is not None
    assert (call.call_id, call.account, call.direction) == (f"{UUID}#3", "sub", "inbound")
    assert (call.phase, call.clock_us, call.is_clock_answer) == (Phase.TALKING, 7_000_000, False)


def test_a_leg_that_waits_for_its_new_destination_is_not_charged_yet() -> None:
    call = restore_call(
        channel(
            authz_call=f"{UUID}#2",
            authz_account="sub",
            authz_to="1",
            authz_started_us=str(NEVER_US),
        ),
        UUID,
    )
    assert call is not None
    assert (call.phase, call.clock_us) == (Phase.RINGING, None)
    ended = Event({"Caller-Channel-Answered-Time": "5", "variable_end_uepoch": "9000000"})
    assert talk_seconds(call, ended, "up") == 0


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"authz_call": "other", "authz_account": "sub", "authz_to": "1"},
        {"authz_call": UUID, "authz_to": "1"},
        {"authz_call": UUID, "authz_account": "sub"},
        {"authz_call": f"{UUID}#0", "authz_account": "sub", "authz_to": "1"},
        {"authz_call": UUID, "authz_account": "sub", "authz_to": "1", "authz_direction": "up"},
        {"authz_call": "other#2", "authz_account": "sub", "authz_to": "1", "authz_leg": "copied"},
    ],
)
def test_a_leg_that_is_not_ours_charges_nobody(words: dict[str, str]) -> None:
    assert restore_call(channel(**words), UUID) is None


def test_a_callees_leg_that_was_left_behind_is_ours() -> None:
    call = restore_call(
        channel(authz_call="first#2", authz_account="sub", authz_to="1", authz_leg=UUID), UUID
    )
    assert call is not None
    assert call.call_id == "first#2"


@pytest.mark.parametrize(("mode", "seconds"), [("up", 4), ("half_up", 4), ("down", 3)])
def test_the_switchs_milliseconds_are_rounded_as_set(mode: Any, seconds: int) -> None:
    call = restore_call(
        channel(authz_call=UUID, authz_account="sub", authz_to="1",
                Caller_Channel_Answered_Time="1000000"), UUID,
    )  # fmt: skip
    assert call is not None
    hangup = Event({"Caller-Channel-Answered-Time": "1000000", "variable_billmsec": "3520"})
    assert talk_seconds(call, hangup, mode) == seconds
