"""The FreeSWITCH agent: which switches it supervises, whose calls are whose, how calls end."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Struct

from authz.config.fields import MEDIA_PATTERN, about, split_address
from authz.errors import ConfigError
from authz.reasons import REASONS

#: A word that can stand in a command of the event socket.
_WORD_PATTERN: Final = r"^[A-Za-z0-9_.@+*#:-]{1,64}$(?!\n)"
_NAME_PATTERN: Final = r"^[!-~]{1,64}$(?!\n)"
#: What `{…}` may name in the account of a rule.
ACCOUNT_WORDS: Final = frozenset(
    {"user", "from_user", "domain", "gateway", "profile", "address", "context", "destination"}
)
_ACCOUNT_WORD: Final = re.compile(r"\{([^{}]*)\}")


Rounding = Literal["up", "half_up", "down"]


class SwitchSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One FreeSWITCH, reached by its inbound event socket."""

    name: Annotated[
        str,
        about("Its name in calls, logs and commands; two hosts that name one share it.",
              pattern=_NAME_PATTERN),
    ]  # fmt: skip
    host: Annotated[str, about("Address of its event socket.", pattern=r"^[!-~]{1,255}$(?!\n)")]
    port: Annotated[int, about("Port of its event socket.", ge=1, le=65_535)] = 8_021
    password: Annotated[
        str | None, about("Password of its event socket; else `password` of the section.",
                          secret=True),
    ] = None  # fmt: skip


class LookupRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who pays for a call. All that is given must fit; the first rule that fits decides."""

    account: Annotated[
        str,
        about(
            "The account that pays. {user}, {from_user}, {domain}, {gateway}, {profile}, "
            "{address}, {context} and {destination} stand for what the call has.",
        ),
    ]
    direction: Annotated[
        Literal["outbound", "inbound"], about("The account's view of the call.")
    ] = "outbound"
    user: Annotated[str | None, about("User that has authenticated (by registration).")] = None
    from_user: Annotated[
        str | None,
        about("User of the From header, which callers choose: give an address as well."),
    ] = None
    domain: Annotated[str | None, about("Domain of the authenticated user.")] = None
    gateway: Annotated[str | None, about("Sofia gateway that the call came by.")] = None
    profile: Annotated[str | None, about("Sofia profile that the call came by.")] = None
    address: Annotated[str | None, about("Source address, or its network.")] = None
    context: Annotated[str | None, about("Dialplan context in which the call waits.")] = None
    destination: Annotated[
        str | None, about("Dialled number; a * at its end stands for any rest.")
    ] = None


class Announcement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a refused caller hears before the refusal, as early media."""

    reason: Annotated[str, about("Reason of the denial (docs/reasons.md), or * for any other.")]
    file: Annotated[
        str, about("File or tone as the application playback takes it.", pattern=MEDIA_PATTERN)
    ]


class FreeswitchSettings(Struct, frozen=True, kw_only=True):
    """Calls of FreeSWITCH: switches supervised by their event socket, and waiting calls."""

    switches: Annotated[
        tuple[SwitchSettings, ...],
        about("The switches whose waiting calls are decided and whose live calls are supervised."),
    ] = ()
    password: Annotated[
        str, about("Password of the event sockets of all switches that have none of their own.",
                   secret=True),
    ] = "ClueCon"  # fmt: skip
    outbound_listen: Annotated[
        str | None,
        about(
            "TCP address for `socket <address> full` in the dialplan: the quick door for waiting "
            "calls. Their switch must be one of `switches`, which supervises them.",
            format="address",
        ),
    ] = None
    outbound_allow: Annotated[
        tuple[str, ...],
        about(
            "Addresses and networks of switches that may use that door. Needed when others than "
            "this host reach it.",
            format="network",
        ),
    ] = ()
    contexts: Annotated[
        tuple[str, ...],
        about(
            "Dialplan contexts in which every parked call waits for us. Elsewhere a parked call "
            "does if it has the variable authz_account or authz_park, or if a rule fits it; "
            "others are left alone. Lookups and CDRs by HTTP concern us in these contexts only."
        ),
    ] = ("authz",)
    rules: Annotated[
        tuple[LookupRule, ...],
        about("Who pays for a call without the channel variable authz_account, in this order."),
    ] = ()
    release_context: Annotated[
        str,
        about(
            "Dialplan context to which an allowed call is transferred, with the dialled number "
            "as extension, unless its variable authz_destination says otherwise.",
            pattern=_WORD_PATTERN,
        ),
    ] = "authorized"
    release_dialplan: Annotated[
        str, about("Dialplan of that context.", pattern=_WORD_PATTERN)
    ] = "XML"  # fmt: skip
    refuse_by: Annotated[
        Literal["respond", "hangup"],
        about(
            "How a refused call ends: with the reason's SIP status, or with its hang-up cause, "
            "which the switch turns into a status of its own."
        ),
    ] = "respond"
    announcements: Annotated[
        tuple[Announcement, ...], about("What refused callers hear first, by reason.")
    ] = ()
    low_credit_file: Annotated[
        str | None,
        about(
            "File or tone that a caller hears before the end of a call that cannot be extended.",
            format="media",
        ),
    ] = "tone_stream://%(200,100,950);loops=2"
    low_credit_seconds: Annotated[
        int, about("How long before the end of the call that is played.", ge=3, le=600)
    ] = 20
    rounding: Annotated[
        Rounding,
        about("How the switch's billable milliseconds become the whole seconds of a settle."),
    ] = "up"
    heartbeat_seconds: Annotated[
        int,
        about(
            "How often the switch itself tells of a live call until its first extension; 0: "
            "never. Extensions ask the switch for the channel where nothing was heard of it.",
            ge=0,
            le=3_600,
        ),
    ] = 0
    deciding_max: Annotated[
        int,
        about(
            "Waiting calls of a switch that are decided at a time; more are refused as "
            "`overloaded` at once, emergency calls never.",
            ge=1,
            le=10_000,
        ),
    ] = 400
    calls_max: Annotated[
        int,
        about("Calls of a switch that are supervised at a time; more are refused.", ge=1,
              le=1_000_000),
    ] = 50_000  # fmt: skip
    lease_seconds: Annotated[
        int,
        about(
            "After how long without a word of the process that serves a switch another host "
            "takes it over.",
            ge=3,
            le=300,
        ),
    ] = 10
    silence_seconds: Annotated[
        int,
        about(
            "How long a switch may be silent (it beats every 20 s) before its connection counts "
            "as lost.",
            ge=5,
            le=600,
        ),
    ] = 45
    nudge_ms: Annotated[
        int,
        about(
            "How often an idle switch is woken, in milliseconds; 0: never. Left alone it looks "
            "for events every 20 ms, which is how long a parked call waits at worst; 2 makes that "
            "2 to 4 ms, for a little CPU on both sides.",
            ge=0,
            le=20,
        ),
    ] = 0

    @property
    def is_used(self) -> bool:
        """Whether there is anything for an agent to do."""
        return bool(self.switches) or self.outbound_listen is not None

    def password_of(self, switch: SwitchSettings) -> str:
        """Return the password of a switch's event socket."""
        return self.password if switch.password is None else switch.password


def check_freeswitch(settings: FreeswitchSettings) -> None:
    """Refuse what no single field shows to be wrong; raise ConfigError."""
    names = [one.name for one in settings.switches]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"freeswitch.switches: two switches are called {name}")
    if settings.outbound_listen is not None:
        if not settings.switches:
            raise ConfigError(
                "freeswitch.outbound_listen: name the switches as well (freeswitch.switches): "
                "their live calls are supervised by their own event socket"
            )
        _check_outbound(settings.outbound_listen, settings.outbound_allow)
    for number, rule in enumerate(settings.rules, 1):
        _check_rule(f"freeswitch.rules: rule {number}", rule)
    for announcement in settings.announcements:
        if announcement.reason not in REASONS and announcement.reason != "*":
            raise ConfigError(
                f"freeswitch.announcements: there is no reason {announcement.reason!r}; "
                "docs/reasons.md lists them"
            )


def _check_rule(where: str, rule: LookupRule) -> None:
    conditions: dict[str, Any] = msgspec.structs.asdict(rule)
    del conditions["account"], conditions["direction"]
    if all(value is None for value in conditions.values()):
        raise ConfigError(f"{where} has no condition, so that every call would be its account's")
    for word in _ACCOUNT_WORD.findall(rule.account):
        if word not in ACCOUNT_WORDS:
            raise ConfigError(
                f"{where}: {{{word}}} in account is none of {', '.join(sorted(ACCOUNT_WORDS))}"
            )
    if rule.address is not None:
        try:
            ipaddress.ip_network(rule.address)
        except ValueError as error:
            raise ConfigError(f"{where}: address {rule.address!r}: {error}") from error


def _check_outbound(listen: str, allow: tuple[str, ...]) -> None:
    host, _ = split_address(listen)
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback and not allow:
        raise ConfigError(
            f"freeswitch.outbound_listen: {host} can be reached from other machines; name the "
            "switches in freeswitch.outbound_allow, or listen on 127.0.0.1"
        )
