"""Files as answers: chosen by what the caller accepts, sent in chunks, cut off when they fail."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Final

from aiohttp import hdrs, web

from authz import log
from authz.admin.routes import CsvFile

CSV_TYPE: Final = "text/csv"
_JSON_TYPE: Final = "application/json"
#: SO_LINGER on, for no time: closing sends a reset instead of an end.
_RESET: Final = struct.pack("ii", 1, 0)


def prefers_csv(request: web.Request) -> bool:
    """Return whether the Accept header asks for CSV rather than for JSON."""
    accepted = ",".join(request.headers.getall(hdrs.ACCEPT, ()))
    csv_quality = _quality(accepted, CSV_TYPE)
    return csv_quality is not None and csv_quality > (_quality(accepted, _JSON_TYPE) or "0")


async def send_file(request: web.Request, file: CsvFile) -> web.StreamResponse:
    """Send a file. What fails before its first chunk is raised and answered as any error.

    Later the status is long gone: then the connection is reset, so that no caller takes what it
    has for the whole.
    """
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: f"{CSV_TYPE}; charset=utf-8",
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{file.name}"',
            hdrs.VARY: hdrs.ACCEPT,
        }
    )
    chunks = _each(file.chunks)
    first = await anext(chunks, b"")
    await response.prepare(request)
    try:
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        log.event("file_left", level="debug", file=file.name, remote=request.remote)
    except Exception as error:
        log.event("file_cut", level="error", error=error, file=file.name)
        _reset(request)
    return response


def _reset(request: web.Request) -> None:
    if request.transport is None:
        return
    connection = request.transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    request.transport.abort()


async def _each(chunks: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk


def _quality(accepted: str, media_type: str) -> str | None:
    """Return the weight of a media type that a header names as such; a comparable text."""
    for item in accepted.split(","):
        name, *parameters = (word.strip().lower() for word in item.split(";"))
        if name == media_type:
            weights = [one[2:].strip() for one in parameters if one.startswith("q=")]
            # "0", "0.5" and "1.000" are in the order of their texts.
            return weights[-1] if weights else "1"
    return None
