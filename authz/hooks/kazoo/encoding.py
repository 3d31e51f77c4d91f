"""How Kazoo writes things: routing keys, times, compressed bodies, and its broker's timestamps."""

from __future__ import annotations

import datetime
import string
import zlib
from typing import Final
from urllib.parse import quote

from pamqp import decode

from authz.hooks.kazoo.errors import MalformedMessage

US: Final = 1_000_000
#: Seconds from year 0, where Kazoo's clock begins, to 1970.
GREGORIAN_OFFSET_SECONDS: Final = 62_167_219_200
#: No message of Kazoo's comes near it, but for the channels of a whole node; a broker takes what
#: it is given.
BODY_BYTES_MAX: Final = 1024 * 1024
CHANNELS_BYTES_MAX: Final = 64 * 1024 * 1024

_UNRESERVED: Final = frozenset(string.ascii_letters + string.digits + "_-")
#: zlib: the greatest window, with the header of gzip.
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
#: A number of seconds since 1970 is below, one of milliseconds or more above.
_SECONDS_MAX: Final = 10**11
#: Seconds from year 1, where Python's dates begin, to 1970, and from there to year 10000.
_UNIX_SECONDS_MAX: Final = 253_402_300_799
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def encode_key(word: str) -> str:
    """Return `word` as one word of a routing key (the contract's section 2.1).

    Letters, digits, `_` and `-` stay, a blank becomes `+`, other bytes `%XX`; so never a dot.
    """
    return "".join(
        one if one in _UNRESERVED else "+" if one == " " else _percent(one) for one in word
    )


def _percent(character: str) -> str:
    # Python leaves these as they are, as RFC 3986 has it; Kazoo does not.
    return f"%{ord(character):02X}" if character in ".~" else quote(character, safe="")


def to_gregorian(unix_seconds: int) -> int:
    """Return a time as Kazoo counts it: seconds from year 0."""
    return unix_seconds + GREGORIAN_OFFSET_SECONDS


def from_gregorian(seconds: int) -> int:
    """Return the Unix time of Kazoo's; below 0 for what was no time of Kazoo's."""
    return seconds - GREGORIAN_OFFSET_SECONDS


def decode_body(
    body: bytes, content_encoding: str | None, bytes_max: int = BODY_BYTES_MAX
) -> bytes:
    """Return the message's text, decompressed; raise MalformedMessage."""
    if len(body) > bytes_max:
        raise MalformedMessage(f"body: {len(body)} bytes are more than {bytes_max}")
    if content_encoding in (None, "", "identity"):
        return body
    if content_encoding != "gzip":
        raise MalformedMessage(f"content_encoding: {content_encoding!r} is neither gzip nor none")
    unzip = zlib.decompressobj(_GZIP_WINDOW)
    try:
        text = unzip.decompress(body, bytes_max)
    except zlib.error as error:
        raise MalformedMessage(f"body: {error}") from error
    if unzip.unconsumed_tail:
        raise MalformedMessage(f"body: it grows to more than {bytes_max} bytes")
    if not unzip.eof:
        raise MalformedMessage("body: it ends within its compressed data")
    return text


class Microseconds(datetime.datetime):
    """A moment that goes onto the wire as Kazoo writes it: microseconds, where AMQP has seconds."""

    def timestamp(self) -> int:
        """Return the microseconds since 1970: the codec packs what this returns."""
        return round(super().timestamp() * US)


def read_timestamp(value: bytes) -> tuple[int, datetime.datetime]:
    """Read a timestamp of a frame, whatever unit it is in; never fail.

    Kazoo writes microseconds, other clients seconds or milliseconds.
    """
    number = int.from_bytes(value[:8], "big")
    while number > _SECONDS_MAX * US:
        number //= 1_000
    if number > _SECONDS_MAX:
        # Milliseconds are 13 digits until the year 2286, microseconds 16.
        number_us = number * 1_000 if number < _SECONDS_MAX * 1_000 else number
    else:
        number_us = number * US
    number_us = min(number_us, _UNIX_SECONDS_MAX * US)
    return 8, _EPOCH + datetime.timedelta(microseconds=number_us)


def read_short_text(value: bytes) -> tuple[int, str]:
    """Read a short text of a frame, which may not be UTF-8; never fail."""
    end = 1 + int.from_bytes(value[:1], "big")
    return end, value[1:end].decode(errors="replace")


def install_readers() -> None:
    """Let the AMQP codec read what Kazoo writes, and what must not end the connection.

    Its own reader takes Kazoo's timestamps for milliseconds, ends up past the year 9999 and
    raises, which ends the connection: no message of Kazoo's could ever be received. A text that
    is not UTF-8 would do the same, and come again and again on each new connection.
    """
    decode.METHODS["timestamp"] = read_timestamp
    decode.TABLE_MAPPING[b"T"] = read_timestamp
    decode.METHODS["shortstr"] = read_short_text
