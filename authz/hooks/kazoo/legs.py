"""One channel as authorization sees it, whichever of Kazoo's messages tells of it.

Sections 1.0 and 1.1 of the contract: whose call, which number, and whether ecallmgr asks at all.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from authz.hooks.kazoo.messages import AuthorizeRequest, CallEvent
from authz.model import ACCOUNT_ID_PATTERN, CALL_ID_LENGTH_MAX, DirectionName

_ACCOUNT_ID: Final = re.compile(ACCOUNT_ID_PATTERN)
_VISIBLE: Final = re.compile(r"[!-~]+")
_SWITCH_LENGTH_MAX: Final = 64
_TEXT_LENGTH_MAX: Final = 128
_CONFERENCE: Final = "conference"


class Leg(Struct, frozen=True, kw_only=True):
    """A channel of an account. `to` is as Kazoo has it, not normalised."""

    call_id: str
    #: "" where the channel has none that could be ours.
    account: str
    reseller: str
    direction: DirectionName
    to: str
    from_: str
    #: The ecallmgr that tells of it: the `switch` of our calls, and where it would hang up.
    node: str
    resource_type: str
    authorizing_type: str
    account_billing: str
    reseller_billing: str
    #: Whether ecallmgr asks about a channel of this kind.
    is_asked_about: bool

    @property
    def is_readable(self) -> bool:
        """Whether its call id is one that a call of ours can have."""
        is_short = len(self.call_id) <= CALL_ID_LENGTH_MAX
        return is_short and _VISIBLE.fullmatch(self.call_id) is not None


def read_leg(message: AuthorizeRequest | CallEvent, node: str) -> Leg:
    """Return the channel that a message of an ecallmgr is about."""
    variable = message.variable
    direction: DirectionName = "inbound" if message.call_direction == "inbound" else "outbound"
    return Leg(
        call_id=message.call_id,
        account=_account_id(variable("Account-ID")),
        reseller=_account_id(variable("Reseller-ID")),
        direction=direction,
        to=_number_of(message)[:_TEXT_LENGTH_MAX],
        from_=message.caller_id_number[:_TEXT_LENGTH_MAX],
        # A channel is told of by its own ecallmgr, whoever relays the event.
        node=_switch_name(variable("Ecallmgr-Node") or node),
        resource_type=variable("Resource-Type"),
        authorizing_type=variable("Authorizing-Type"),
        account_billing=variable("Account-Billing"),
        reseller_billing=variable("Reseller-Billing"),
        is_asked_about=_is_asked_about(message, direction),
    )


def _account_id(text: str) -> str:
    return text if _ACCOUNT_ID.match(text) else ""


def _switch_name(node: str) -> str:
    name = node[:_SWITCH_LENGTH_MAX]
    return name if _VISIBLE.fullmatch(name) else "kazoo"


def _number_of(message: AuthorizeRequest | CallEvent) -> str:
    return (
        message.variable("E164-Destination")
        or message.variable("Original-Number")
        or message.request.partition("@")[0]
    )


def _is_asked_about(message: AuthorizeRequest | CallEvent, direction: DirectionName) -> bool:
    """Return whether ecallmgr's own rules lead to a question: only legs that touch a carrier do."""
    variable = message.variable
    if variable("Authorizing-Type") == "mobile" or variable("Global-Resource") == "false":
        return False
    if message.request.partition("@")[0] == _CONFERENCE:
        return False
    if direction == "outbound":
        return bool(variable("Resource-ID"))
    return not variable("Authorizing-ID") or variable("Authorizing-Type") == "resource"
