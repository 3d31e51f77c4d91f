"""The sections of the settings that the core needs: each a Struct whose fields say what they mean.

Parts that stand beside the core have a module each in this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Struct, field

from authz.config.fields import about

OrphanPolicy = Literal["charge_reported", "charge_held", "release"]


class StoreSettings(Struct, frozen=True, kw_only=True):
    """Where accounts and calls live: a Redis or Valkey server."""

    url: Annotated[
        str | None,
        about(
            "The server that keeps accounts and calls; without one, an own server is started "
            "in the state directory.",
            secret=True,
            restart=True,
            format="store_url",
        ),
    ] = None
    appendfsync: Annotated[
        Literal["everysec", "always"],
        about(
            "How the own server writes to disk: each second, or before each answer. A server "
            "named by url has its own configuration.",
            restart=True,
        ),
    ] = "everysec"
    decision_deadline_ms: Annotated[
        int,
        about("How long a decision waits for the store before it fails.", ge=10, le=10_000),
    ] = 250
    settle_deadline_ms: Annotated[
        int,
        about("How long a settle waits for the store before it is spooled.", ge=10, le=60_000),
    ] = 1_000
    closed_keep_seconds: Annotated[
        int,
        about(
            "How long an ended call is remembered, so that a repeated report of it is known "
            "as one.",
            ge=3_600,
            le=2_678_400,
        ),
    ] = 86_400


class HookSettings(Struct, frozen=True, kw_only=True):
    """What switches call: POST /v1/authorize, /v1/reserve, /v1/settle."""

    listen: Annotated[
        str | None, about("TCP address of the hook API; port 0 takes a free one.", format="address")
    ] = "127.0.0.1:8700"
    unix_socket: Annotated[
        Path | None, about("Path of a Unix socket that serves the hook API as well.")
    ] = None
    unix_socket_mode: Annotated[
        str, about("Who may use the Unix socket, as a file mode.", format="file_mode")
    ] = "0660"
    token: Annotated[
        str | None,
        about("Bearer token that each request must carry.", secret=True, format="token"),
    ] = None
    allow: Annotated[
        tuple[str, ...],
        about(
            "Addresses and networks that may connect; empty allows all. A listener that others "
            "than this host reach needs this or a token.",
            format="network",
        ),
    ] = ()
    workers: Annotated[
        int,
        about("Processes that answer switches; about one for each core to spare.", ge=1, le=128),
    ] = 1
    in_flight_max: Annotated[
        int,
        about(
            "Requests that one worker decides at a time; more are answered `overloaded` at once. "
            "Far above 400 a worker mistakes its own queue for a slow store.",
            ge=1,
            le=100_000,
        ),
    ] = 400
    header_bytes_max: Annotated[
        int, about("Longest request line with headers, in bytes.", ge=1_024, le=1_048_576)
    ] = 16_384
    body_bytes_max: Annotated[
        int, about("Longest request body, in bytes.", ge=1_024, le=1_048_576)
    ] = 65_536
    connections_max: Annotated[
        int, about("Connections that one worker keeps; more are refused.", ge=1, le=1_000_000)
    ] = 4_096
    idle_seconds: Annotated[
        int,
        about(
            "How long a connection may stay without a request before it is closed.",
            ge=1,
            le=86_400,
        ),
    ] = 75


class AdminSettings(Struct, frozen=True, kw_only=True):
    """What operators and billing systems call."""

    listen: Annotated[
        str | None,
        about("TCP address of the admin API; port 0 takes a free one.", format="address"),
    ] = "127.0.0.1:8701"
    token: Annotated[
        str | None,
        about(
            "Bearer token with every right, also while the store is away; needed when others than "
            "this host reach the API and the store has no token (`authz token`).",
            secret=True,
            format="token",
        ),
    ] = None
    body_bytes_max: Annotated[
        int,
        about("Longest request body (an uploaded deck), in bytes.", ge=65_536, le=2_147_483_648),
    ] = 268_435_456


class CallSettings(Struct, frozen=True, kw_only=True):
    """How calls are granted time and when they count as lost."""

    chunk_seconds: Annotated[
        int, about("How much time is granted and held at a time.", ge=1, le=86_400)
    ] = 60
    ring_seconds: Annotated[
        int, about("How long a call may ring; the switch is told.", ge=5, le=3_600)
    ] = 180
    grace_seconds: Annotated[
        int,
        about("How long past its granted time a silent call is believed alive.", ge=1, le=3_600),
    ] = 30
    sign_of_life_seconds: Annotated[
        int, about("How often a call that nothing limits is heard of.", ge=10, le=86_400)
    ] = 300
    orphan_policy: Annotated[
        OrphanPolicy,
        about(
            "What a call costs that was never hung up: its last reported use, its whole hold "
            "(if any use was reported), or nothing."
        ),
    ] = "charge_reported"
    enforce: Annotated[
        bool,
        about("Off: decide and charge as usual, but let refused calls pass (for migrations)."),
    ] = True
    default_deck: Annotated[
        str | None, about("Deck of accounts that have none, nor has any ancestor.")
    ] = None


class DeckSettings(Struct, frozen=True, kw_only=True):
    """What holds for an imported deck that does not say otherwise."""

    currency: Annotated[str, about("Currency of a new deck.", format="currency")] = "USD"
    timezone: Annotated[
        str,
        about("Time zone of a new deck's windows and effective dates.", format="timezone"),
    ] = "UTC"


class FailureSettings(Struct, frozen=True, kw_only=True):
    """What happens to calls while the store does not answer."""

    on_store_failure: Annotated[
        Literal["deny", "allow"],
        about("New calls, other than emergency and toll-free, which are always allowed."),
    ] = "deny"
    allow_calls_max: Annotated[
        int, about("With `allow`: most such calls at a time in one process.", ge=0, le=1_000_000)
    ] = 100
    allow_seconds_max: Annotated[
        int, about("With `allow`: most seconds granted to such a call.", ge=1, le=2_678_400)
    ] = 300
    on_store_failure_running: Annotated[
        Literal["extend", "deny"],
        about("Running calls that ask for more time: one more chunk each time, or none."),
    ] = "extend"
    extend_seconds_max: Annotated[
        int, about("With `extend`: for how many seconds of an outage.", ge=0, le=86_400)
    ] = 300


class NumberRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one way of dialling becomes E.164. The first rule that fits is used."""

    prefix: Annotated[
        str, about("What the dialled digits start with.", pattern=r"^\+?[0-9*#]*$")
    ] = ""
    replace: Annotated[str, about("What stands in place of the prefix.", pattern=r"^\+[0-9]*$")]
    digits_min: Annotated[int, about("Fewest digits dialled, with the prefix.", ge=1, le=32)] = 1
    digits_max: Annotated[int, about("Most digits dialled, with the prefix.", ge=1, le=32)] = 32


class ClassRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which class the numbers under a prefix have. The longest prefix that fits is used."""

    prefix: Annotated[str, about("E.164 prefix.", pattern=r"^\+[0-9]{1,15}$")]
    class_: Annotated[
        Literal[
            "tollfree", "premium", "caribbean", "national", "international", "satellite", "unknown"
        ],
        about(
            "Their class: tollfree, premium, caribbean, national, international, satellite or "
            "unknown."
        ),
    ] = field(name="class")


NORTH_AMERICAN_RULES: Final = (
    NumberRule(prefix="+", replace="+", digits_min=7, digits_max=15),
    NumberRule(prefix="011", replace="+", digits_min=10, digits_max=18),
    NumberRule(prefix="00", replace="+", digits_min=9, digits_max=17),
    NumberRule(prefix="1", replace="+1", digits_min=11, digits_max=11),
    NumberRule(prefix="", replace="+1", digits_min=10, digits_max=10),
)


class NumberSettings(Struct, frozen=True, kw_only=True):
    """How dialled numbers are read."""

    emergency: Annotated[
        tuple[str, ...],
        about(
            "Emergency numbers besides 911, 112, 933, 999, 988 and 711, each as it is dialled.",
            format="dialled",
        ),
    ] = ()
    rules: Annotated[
        tuple[NumberRule, ...],
        about("How a dialled number becomes E.164, in this order."),
    ] = NORTH_AMERICAN_RULES
    classes: Annotated[
        tuple[ClassRule, ...],
        about("Classes of numbers, before the built-in ones of the same or a shorter prefix."),
    ] = ()


class SpoolSettings(Struct, frozen=True, kw_only=True):
    """Where settles wait while the store is away."""

    bytes_max: Annotated[
        int,
        about(
            "Most bytes that one process spools; past that the switch must repeat (503).",
            ge=1_048_576,
            le=1_099_511_627_776,
        ),
    ] = 268_435_456


class ServerSettings(Struct, frozen=True, kw_only=True):
    """How the processes of `authz serve` are run."""

    drain_seconds: Annotated[
        int,
        about("How long a process that ends may take for what it has begun.", ge=0, le=600),
    ] = 10
    start_seconds: Annotated[
        int, about("How long a process may take until it is ready.", ge=1, le=600)
    ] = 30
    hang_seconds: Annotated[
        int,
        about("A process that is silent for so long is killed and started anew.", ge=2, le=600),
    ] = 20
    crashes_max: Annotated[
        int,
        about(
            "So many ends of one process in a row, each within 10 seconds of its start, end the "
            "daemon.",
            ge=1,
            le=1_000,
        ),
    ] = 5


class LogSettings(Struct, frozen=True, kw_only=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], about("The least level that is written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"],
        about("One JSON object a line, or text; auto is text on a terminal and JSON elsewhere."),
    ] = "auto"
    mask_numbers: Annotated[
        bool, about("Hide the last four digits of dialled and calling numbers.")
    ] = True
