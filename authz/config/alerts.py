"""Sections of the settings about telling events: how long, to which programs, by which mail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Struct

from authz.config.fields import about


class EventSettings(Struct, frozen=True, kw_only=True):
    """How alerts and recharge requests are told and kept."""

    attempts_max: Annotated[
        int,
        about(
            "How often one event is sent to one receiver; then it is a dead letter, which can be "
            "sent again by hand. The default takes about three days.",
            ge=1,
            le=100,
        ),
    ] = 15
    retry_seconds: Annotated[
        int,
        about("How long after the first failure to try again; each further wait is three times "
              "as long.", ge=1, le=3_600),
    ] = 5  # fmt: skip
    retry_seconds_max: Annotated[
        int, about("The longest wait between two tries.", ge=1, le=604_800)
    ] = 43_200
    keep_days: Annotated[
        int,
        about("How long events, and what became of telling them, are kept.", ge=1, le=36_500),
    ] = 400


class WebhookSettings(Struct, frozen=True, kw_only=True):
    """How events are sent to the programs that `authz webhook` or the API names."""

    allow_private: Annotated[
        bool,
        about(
            "Whether receivers may be in private networks or on this host, and be reached "
            "without TLS. Off: whoever may set a webhook reaches nothing but the Internet."
        ),
    ] = False
    timeout_seconds: Annotated[int, about("How long one attempt may take.", ge=1, le=120)] = 15
    in_flight_max: Annotated[
        int, about("Events that are sent to one receiver at a time.", ge=1, le=64)
    ] = 4
    rotation_hours: Annotated[
        int,
        about(
            "For how long a secret that was replaced still signs beside the new one.",
            ge=0,
            le=8_760,
        ),
    ] = 24


class EmailSettings(Struct, frozen=True, kw_only=True):
    """How events are mailed, to operators and to those that accounts name in `alert_email`."""

    host: Annotated[
        str | None, about("The mail server that takes our mails; without one, none are sent.")
    ] = None
    port: Annotated[int, about("Its port.", ge=1, le=65_535)] = 587
    security: Annotated[
        Literal["starttls", "tls", "none"],
        about("TLS after STARTTLS, TLS from the first byte, or none (only for this host)."),
    ] = "starttls"
    ca_file: Annotated[
        Path | None, about("Certificates to trust instead of the system's, in PEM.")
    ] = None
    username: Annotated[str | None, about("Name to log in with, if the server wants one.")] = None
    password: Annotated[str | None, about("Password to log in with.", secret=True)] = None
    sender: Annotated[str, about("The address that mails come from.", format="email")] = (
        "authz@localhost"
    )
    to: Annotated[
        tuple[str, ...],
        about("Operators who get a mail of every event in `events`, of all accounts.",
              format="email"),
    ] = ()  # fmt: skip
    events: Annotated[
        tuple[str, ...], about("Of what operators are told; empty: of everything.", format="event")
    ] = (
        "balance.exhausted", "recharge.failed", "recharge.expired", "spend_limit.reached",
        "rate.missing",
    )  # fmt: skip
    account_events: Annotated[
        tuple[str, ...],
        about("Of what those whom an account names are told; empty: of everything.",
              format="event"),
    ] = ("balance.*", "recharge.*", "spend_limit.*", "trunks.exhausted")  # fmt: skip
    timeout_seconds: Annotated[int, about("How long one mail may take.", ge=1, le=300)] = 30
    in_flight_max: Annotated[int, about("Mails that are sent at a time.", ge=1, le=64)] = 4
