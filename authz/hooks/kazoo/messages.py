"""Kazoo's messages: what is read of them, and what is written.

A message is one flat JSON object: the headers that all have, and a body. Headers are a Struct of
their own (`Header`), since the broker fills them. What comes in is read leniently: unknown fields
are ignored, a number may be written as text or a text as a number, null is nothing, and only what
nothing can be done without is required and must be right; a text that is none counts as not given.
What nobody here needs is not read, and so is never wrong: an odd caller id must cost neither a
question its answer nor a hang-up its charge. Bodies that go
out have exactly the types that Kazoo's validators demand, and nothing that is empty. The
contract's sections 2.2 and 2.3 name the fields.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar, Final, TypeVar

import msgspec
from msgspec import Struct

from authz.hooks.kazoo.errors import MalformedMessage

#: Custom-Channel-Vars: Kazoo writes most values as text, but not all.
Variables = dict[str, Any]

_UPPER: Final = {"id": "ID", "did": "DID", "nocharge": "NoCharge"}


def wire_name(name: str) -> str:
    """Return a field's name as Kazoo spells it: `call_id` is `Call-ID`."""
    return "-".join(_UPPER.get(word, word.capitalize()) for word in name.split("_"))


class Header(Struct, rename=wire_name, kw_only=True, omit_defaults=True):
    """What every message has. An answer echoes the `msg_id` of what it answers."""

    event_category: str
    event_name: str
    msg_id: str
    app_name: str = ""
    app_version: str = ""
    node: str = ""
    #: Where an answer is to go; see `replies`.
    server_id: str = ""

    @property
    def kind(self) -> tuple[str, str]:
        """Category and name together."""
        return self.event_category, self.event_name


class Body(Struct, rename=wire_name, kw_only=True, omit_defaults=True):
    """What a message has beside its header. `kind` is its category and name."""

    kind: ClassVar[tuple[str, str]]


class _WithVariables(Body, kw_only=True):
    """A body with variables of the channel."""

    custom_channel_vars: Variables = {}

    def variable(self, name: str) -> str:
        """Return a channel variable as text, "" if it is missing."""
        return variable_of(self.custom_channel_vars, name)


def variable_of(variables: Variables, name: str) -> str:
    """Return one of some variables as text; "" for a missing one, `true` and `false` for those."""
    value = variables.get(name)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None or isinstance(value, dict | list) else str(value)


class AuthorizeRequest(_WithVariables, kw_only=True):
    """ecallmgr asks: may this channel go on, and who pays?"""

    kind = ("authz", "authz_req")

    call_id: str
    #: As the switch sees it.
    call_direction: str = ""
    caller_id_number: str = ""
    request: str = ""
    other_leg_call_id: str = ""


class AuthorizeAnswer(_WithVariables, kw_only=True):
    """The decision, to whoever asked and to all. Read in shadow mode, written otherwise."""

    kind = ("authz", "authz_resp")

    call_id: str
    is_authorized: bool
    soft_limit: bool
    account_id: str = ""
    account_billing: str = ""
    reseller_id: str = ""
    reseller_billing: str = ""
    call_direction: str = ""
    other_leg_call_id: str = ""


class BalanceRequest(Body, kw_only=True):
    """Which of these accounts can go on paying by the minute?"""

    kind = ("authz", "balance_check_req")

    accounts: list[str]


class BalanceAnswer(Body, kw_only=True):
    """By account, whether it can; ecallmgr ends all per-minute calls of one that cannot."""

    kind = ("authz", "balance_check_resp")

    balances: dict[str, bool]


class RateRequest(Body, kw_only=True):
    """What does a call to this number cost?"""

    kind = ("rate", "req")

    to_did: str
    account_id: str = ""
    call_id: str = ""
    direction: str = ""
    ratedeck_id: str = ""
    #: Whether an answer without a rate is wanted where there is none.
    send_empty: bool = False


class RateAnswer(Body, kw_only=True):
    """A rate in Kazoo's units, 1/10000; without any field: there is none."""

    kind = ("rate", "resp")

    call_id: str = ""
    rate: str = ""
    rate_increment: int | None = None
    rate_minimum: str = ""
    rate_nocharge_time: int | None = None
    surcharge: str = ""
    base_cost: str = ""
    pvt_cost: str = ""
    discount_percentage: int | Decimal | None = None
    prefix: str = ""
    rate_id: str = ""
    rate_name: str = ""
    rate_description: str = ""
    rate_version: str = ""
    ratedeck_id: str = ""
    update_callee_id: bool | None = None


class CallEvent(_WithVariables, kw_only=True):
    """Something that happened to a channel; which, says its header's `event_name`."""

    kind = ("call_event", "")

    call_id: str
    #: Gregorian seconds.
    timestamp: int = 0
    call_direction: str = ""
    caller_id_number: str = ""
    request: str = ""
    switch_nodename: str = ""
    hangup_cause: str = ""
    #: None: the event does not say, which is not the same as none.
    billing_seconds: int | None = None


class ChannelsRequest(Body, kw_only=True):
    """Which channels has every ecallmgr?"""

    kind = ("call_event", "query_channels_req")

    active_only: bool
    fields: str = ""
    call_id: str = ""


class ChannelsAnswer(Body, kw_only=True):
    """The channels of one ecallmgr, by call id."""

    kind = ("call_event", "query_channels_resp")

    channels: dict[str, dict[str, Any]]


class Metaflow(Body, kw_only=True):
    """An order to a channel, which the application konami carries out."""

    kind = ("metaflow", "action")

    action: str
    call_id: str
    data: dict[str, Any] = {}


class LowBalance(Body, kw_only=True):
    """Tells Kazoo's notifications that an account's balance is low. Units of 1/10000."""

    kind = ("notification", "low_balance")

    account_id: str
    current_balance: int


class Topup(Body, kw_only=True):
    """Tells Kazoo's notifications what became of a recharge."""

    kind = ("notification", "topup")

    account_id: str
    #: Units of currency as a JSON number, written by `money.format_amount`.
    amount: msgspec.Raw
    response: str
    success: bool
    #: Gregorian seconds.
    timestamp: int


class Channel(Struct, kw_only=True):
    """One live channel as an ecallmgr tells of it when asked for all of them."""

    call_id: str
    call_direction: str = ""
    destination: str = ""
    account_id: str = ""
    account_billing: str = ""
    reseller_id: str = ""
    reseller_billing: str = ""
    authorizing_type: str = ""
    resource_id: str = ""
    other_leg_call_id: str = ""
    #: The FreeSWITCH node.
    switch_nodename: str = ""
    is_answered: bool = False
    #: Gregorian seconds of its beginning, and how long it has been there.
    timestamp: int = 0
    elapsed_seconds: int = 0


#: Other names of the same, once small and with `_`: Kazoo has a short and a long form.
_CHANNEL_NAMES: Final = {
    "direction": "call_direction",
    "other_leg": "other_leg_call_id",
    "media_node": "switch_nodename",
    "node": "switch_nodename",
    "answered": "is_answered",
    "elapsed_s": "elapsed_seconds",
}

_M = TypeVar("_M", bound=Struct)
_DECODERS: dict[type[Struct], msgspec.json.Decoder[Any]] = {}


def decode_header(text: bytes) -> Header:
    """Read a message's header; raise MalformedMessage."""
    return decode_as(Header, text)


def decode_as(kind: type[_M], text: bytes) -> _M:
    """Read a message's body as one of `kind`; raise MalformedMessage, which names the field."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind, strict=False)
    try:
        message: _M = decoder.decode(text)
    except msgspec.ValidationError as error:
        return _decode_leniently(kind, text, error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(str(error)) from error
    return message


def _decode_leniently(kind: type[_M], text: bytes, reason: msgspec.ValidationError) -> _M:
    """Read a message again without what in it is nothing; raise MalformedMessage."""
    try:
        document = msgspec.json.decode(text)
        if not isinstance(document, dict):
            raise reason
        known = {name: value for name, value in document.items() if value is not None}
        for one in msgspec.structs.fields(kind):
            if not one.required and one.encode_name in known:
                _amend(known, one.encode_name, one.type)
        return msgspec.convert(known, kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(str(error)) from error


def _amend(document: dict[str, Any], name: str, kind: Any) -> None:
    """Write a number as text where text is wanted, and take away what cannot be meant so."""
    value = document[name]
    if kind is str and isinstance(value, int | float):
        document[name] = msgspec.json.encode(value).decode()
    elif (kind is str and not isinstance(value, str)) or (
        kind == Variables and not isinstance(value, dict)
    ):
        del document[name]


def read_channel(call_id: str, fields: dict[str, Any]) -> Channel:
    """Read one entry of `ChannelsAnswer.channels`; raise MalformedMessage."""
    known: dict[str, Any] = {}
    for name, value in fields.items():
        plain = name.lower().replace("-", "_")
        if value is not None:
            known.setdefault(_CHANNEL_NAMES.get(plain, plain), value)
    try:
        return msgspec.convert({**known, "call_id": call_id}, Channel, strict=False)
    except msgspec.ValidationError as error:
        raise MalformedMessage(f"Channels, {call_id}: {error}") from error


def encode(header: Header, body: Body) -> bytes:
    """Return the message as Kazoo reads it: one object of both."""
    head, rest = msgspec.json.encode(header), msgspec.json.encode(body)
    return head if rest == b"{}" else head[:-1] + b"," + rest[1:]
