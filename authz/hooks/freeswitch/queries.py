"""What a switch can be asked about its channels, with the answers read.

An answer of the switch that cannot be read is an error, never an empty list: a switch that we do
not understand is not a switch without calls.
"""

from __future__ import annotations

import msgspec

from authz.errors import ProtocolError
from authz.hooks.freeswitch import commands
from authz.hooks.freeswitch.connection import EventSocketConnection
from authz.hooks.freeswitch.errors import CommandFailed
from authz.hooks.freeswitch.events import Event, event_of_json


class Channel(msgspec.Struct, frozen=True, rename={"caller_number": "cid_num"}):
    """A row of `show channels`. Beware: it lags by some hundred milliseconds.

    `direction` is the switch's; `call_uuid` is empty until the leg is bridged.
    """

    uuid: str
    direction: str = ""
    name: str = ""
    state: str = ""
    callstate: str = ""
    created_epoch: str = ""
    caller_number: str = ""
    dest: str = ""
    application: str = ""
    application_data: str = ""
    context: str = ""
    call_uuid: str = ""


class _Channels(msgspec.Struct):
    """The answer to `show channels as json`; without channels it has no rows."""

    row_count: int
    rows: list[Channel] = []


_CHANNELS = msgspec.json.Decoder(_Channels)


async def show_channels(
    connection: EventSocketConnection, timeout_seconds: float | None = None
) -> list[Channel]:
    """Return all channels of the switch. Raises ProtocolError for an answer of another form."""
    answer = await connection.api(commands.SHOW_CHANNELS, timeout_seconds)
    try:
        shown = _CHANNELS.decode(answer)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"`show channels` cannot be read: {error}") from None
    if shown.row_count != len(shown.rows):
        raise ProtocolError(f"`show channels` has {len(shown.rows)} of {shown.row_count} rows")
    return shown.rows


async def dump_channel(connection: EventSocketConnection, uuid: str) -> Event | None:
    """Return all that a channel is, its variables included, or None if it is gone."""
    try:
        answer = await connection.api(commands.uuid_dump(uuid))
    except CommandFailed as error:
        if error.is_gone:
            return None
        raise
    return event_of_json(answer.encode())
