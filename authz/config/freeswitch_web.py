"""What a FreeSWITCH asks by HTTP: the dialplan of mod_xml_curl and the CDRs of mod_json_cdr."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from authz.config.fields import about


class FreeswitchWebSettings(Struct, frozen=True, kw_only=True):
    """Calls that a FreeSWITCH asks for by HTTP. Most of what holds for them is in [freeswitch]."""

    longest_call_seconds: Annotated[
        int,
        about(
            "How long a call of the dialplan door may last. It is asked for and held at once, "
            "because that door never extends a call.",
            ge=60,
            le=86_400,
        ),
    ] = 7_200
    bridge: Annotated[
        str | None,
        about(
            "Dial string that an allowed call is bridged to, as sofia/gateway/carrier/{number}; "
            "without one it is transferred to freeswitch.release_context. {number} stands for "
            "the E.164 number with +, {digits} for it without, {dialled} for what was dialled, "
            "{account} for who pays; ${…} is left to the switch.",
            format="dial_string",
        ),
    ] = None
