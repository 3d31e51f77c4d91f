"""Whose call is it? Reads account and direction from what a switch tells of a channel.

The channel variable `authz_account` decides, else the first rule of `freeswitch.rules` that fits.
What a caller chooses freely (the From header, the dialled number) can become an account's name
only where a rule says so, and only if the result is a valid account id.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from authz.config.freeswitch import ACCOUNT_WORDS, LookupRule
from authz.hooks.freeswitch import variables
from authz.hooks.freeswitch.events import Event
from authz.model import ACCOUNT_ID_PATTERN, DirectionName
from authz.reasons import DIRECTIONS

_ACCOUNT_ID: Final = re.compile(ACCOUNT_ID_PATTERN)
#: Stands for the payer of an emergency call that nobody is found for; no account has this id.
NOBODY: Final = "nobody"
_WORD: Final = re.compile(r"\{([a-z_]+)\}")


class Payer(NamedTuple):
    """Who pays for a call, and how the account sees it."""

    account: str
    direction: DirectionName


class Lookup:
    """The rules of the settings, made ready."""

    def __init__(self, rules: Sequence[LookupRule]) -> None:
        """Take rules that `check_freeswitch` has accepted."""
        self._rules = [_Rule(rule) for rule in rules]

    def find(self, channel: Event) -> Payer | None:
        """Return the payer of a channel, as an event or a dump of it shows it, or None.

        A name or a direction that cannot be one is as good as none: nobody pays by accident.
        """
        asked = channel.variable(variables.DIRECTION)
        if asked and asked not in DIRECTIONS:
            return None
        named = channel.variable(variables.ACCOUNT)
        if named:
            return _payer(named, asked or "outbound")
        for rule in self._rules:
            if rule.fits(channel):
                return _payer(rule.account(channel), asked or rule.direction)
        return None


def _payer(account: str, direction: str) -> Payer | None:
    if not _ACCOUNT_ID.match(account):
        return None
    return Payer(account, DIRECTIONS[direction].label)


class _Rule:
    """One rule with its conditions as functions of a channel."""

    def __init__(self, rule: LookupRule) -> None:
        self._template = rule.account
        self.direction = rule.direction
        self._conditions: list[Callable[[Event], bool]] = []
        for word in sorted(ACCOUNT_WORDS):
            wanted = getattr(rule, word)
            if wanted is not None:
                self._conditions.append(_condition(word, wanted))

    def fits(self, channel: Event) -> bool:
        return all(condition(channel) for condition in self._conditions)

    def account(self, channel: Event) -> str:
        return _WORD.sub(lambda match: word_of(channel, match[1]), self._template)


def _condition(word: str, wanted: str) -> Callable[[Event], bool]:
    if word == "address":
        network = ipaddress.ip_network(wanted)
        return lambda channel: _address_in(word_of(channel, word), network)
    if word == "destination" and wanted.endswith("*"):
        return lambda channel: word_of(channel, word).startswith(wanted[:-1])
    return lambda channel: word_of(channel, word) == wanted


def _address_in(text: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(text) in network
    except ValueError:
        return False


def word_of(channel: Event, word: str) -> str:
    """Return what a word of a rule stands for on this channel; empty where it has none."""
    match word:
        case "user":
            # Only what the switch has checked: `user_name` comes from its directory.
            return channel.variable("sip_auth_username") or channel.variable("user_name")
        case "from_user":
            return channel.variable("sip_from_user")
        case "domain":
            return channel.variable("domain_name") or channel.variable("sip_auth_realm")
        case "gateway":
            return channel.variable("sip_gateway") or channel.variable("sip_gateway_name")
        case "profile":
            return channel.variable("sofia_profile_name")
        case "address":
            return channel.variable("sip_network_ip") or channel.get("Caller-Network-Addr")
        case "context":
            return channel.get("Caller-Context")
    return channel.get("Caller-Destination-Number")
