"""What a FreeSWITCH asks by HTTP: the dialplan of mod_xml_curl and the CDRs of mod_json_cdr."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from authz.config.fields import about


class FreeswitchWebSettings(Struct, frozen=True, kw_only=True):
    """Calls of a FreeSWITCH that asks by HTTP: POST /freeswitch/dialplan and /freeswitch/cdr."""

    contexts: Annotated[
        tuple[str, ...],
        about(
            "Dialplan contexts whose calls are decided and charged here. A lookup in any other "
            "is answered `not found`, a CDR that never was in one is ignored."
        ),
    ] = ("authz",)
    longest_call_seconds: Annotated[
        int,
        about(
            "How long a call of the dialplan door may last. It is asked for and held at once, "
            "because that door never extends a call.",
            ge=60,
            le=86_400,
        ),
    ] = 7_200
    transfer_context: Annotated[
        str,
        about(
            "Dialplan context of the switch that an allowed call is transferred to.",
            pattern=r"^[A-Za-z0-9_.-]{1,64}$(?!\n)",
        ),
    ] = "authorized"
    bridge: Annotated[
        str | None,
        about(
            "Dial string that an allowed call is bridged to instead of being transferred, as "
            "sofia/gateway/carrier/{number}. {number} stands for the E.164 number with +, "
            "{digits} for it without, {dialled} for what was dialled, {account} for who pays; "
            "${…} is left to the switch.",
            format="dial_string",
        ),
    ] = None
    refuse_by: Annotated[
        Literal["respond", "hangup"],
        about(
            "How a refused call ends: with the reason's SIP status, or with its hang-up cause, "
            "which the switch turns into a status of its own."
        ),
    ] = "respond"
