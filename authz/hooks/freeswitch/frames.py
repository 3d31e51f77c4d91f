"""The frames of FreeSWITCH's event socket, cut from a byte stream that splits them anywhere.

A frame is a block of header lines, an empty line, and as many bytes of body as its Content-Length
says, with nothing after them. A header's value is left as it came: only events know whether theirs
are percent-encoded. Sizes are bounded, so that no peer can make us buffer without end.
"""

from __future__ import annotations

from typing import Final

from authz.errors import ProtocolError

#: A connect reply has about 160 headers in 6 kB, and some variables are as long as a SIP message.
HEADER_BYTES_MAX: Final = 1 << 20
#: What FreeSWITCH itself accepts as a body; a `show channels` of 25,000 channels fits into it.
BODY_BYTES_MAX: Final = 16 << 20

AUTH_REQUEST: Final = "auth/request"
COMMAND_REPLY: Final = "command/reply"
API_RESPONSE: Final = "api/response"
EVENT_PLAIN: Final = "text/event-plain"
EVENT_JSON: Final = "text/event-json"
DISCONNECT_NOTICE: Final = "text/disconnect-notice"
RUDE_REJECTION: Final = "text/rude-rejection"
LOG_DATA: Final = "log/data"

_END_OF_HEADERS: Final = b"\n\n"
#: More digits are no length but an attack on the parser.
_LENGTH_DIGITS_MAX: Final = 10
_SHOWN_CHARACTERS: Final = 80


class Frame:
    """One frame: its headers by name, as they came, and its body."""

    __slots__ = ("body", "content_type", "headers")

    def __init__(self, headers: dict[str, str], body: bytes) -> None:
        self.headers = headers
        self.body = body
        self.content_type = headers.get("Content-Type", "")

    def __repr__(self) -> str:
        return f"<Frame {self.content_type} {len(self.headers)} headers, {len(self.body)} bytes>"

    @property
    def reply_text(self) -> str:
        """What the switch answered to a command, without the end of the line."""
        return self.headers.get("Reply-Text", "").rstrip("\n")

    @property
    def text(self) -> str:
        """The body as text; bytes that are no UTF-8 are replaced, for callers name themselves."""
        return self.body.decode("utf-8", "replace")


class FrameReader:
    """Cuts frames from what `feed` is given, whatever the pieces it comes in.

    The first thing that is no frame sets `failure`; nothing is read after that, because nobody
    knows where the next frame begins. The frames before it are good.
    """

    __slots__ = (
        "_body_bytes_max",
        "_buffer",
        "_header_bytes_max",
        "_headers",
        "_needed",
        "_seen",
        "failure",
    )

    def __init__(
        self, *, header_bytes_max: int = HEADER_BYTES_MAX, body_bytes_max: int = BODY_BYTES_MAX
    ) -> None:
        self._header_bytes_max = header_bytes_max
        self._body_bytes_max = body_bytes_max
        self._buffer = bytearray()
        #: Headers whose body is not complete, and how many bytes that has.
        self._headers: dict[str, str] | None = None
        self._needed = 0
        #: How far the buffer was searched for the end of a header block, in vain.
        self._seen = 0
        self.failure: ProtocolError | None = None

    @property
    def buffered_bytes(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete, in order."""
        frames: list[Frame] = []
        if self.failure is not None:
            return frames
        self._buffer += data
        try:
            self._cut(frames)
        except ProtocolError as error:
            self.failure = error
            self._buffer.clear()
        return frames

    def _cut(self, frames: list[Frame]) -> None:
        buffer = self._buffer
        start = 0
        while True:
            if self._headers is None:
                end = self._end_of_headers(start)
                if end < 0:
                    break
                self._headers = parse_headers(bytes(buffer[start:end]))
                self._needed = self._body_length(self._headers)
                start = end + len(_END_OF_HEADERS)
            if len(buffer) - start < self._needed:
                break
            end = start + self._needed
            frames.append(Frame(self._headers, bytes(buffer[start:end])))
            self._headers = None
            start = self._seen = end
        # One removal for all frames: what is left is at most one unfinished frame.
        del buffer[:start]
        self._seen = max(0, self._seen - start)

    def _end_of_headers(self, start: int) -> int:
        end = self._buffer.find(_END_OF_HEADERS, max(start, self._seen))
        unfinished = len(self._buffer) - start if end < 0 else end - start
        if unfinished > self._header_bytes_max:
            raise ProtocolError(f"a header block of more than {self._header_bytes_max} bytes")
        if end < 0:
            # The first of the two line ends may be the last byte that has come.
            self._seen = max(start, len(self._buffer) - 1)
        return end

    def _body_length(self, headers: dict[str, str]) -> int:
        text = headers.get("Content-Length", "0")
        if not (text.isascii() and text.isdigit()) or len(text) > _LENGTH_DIGITS_MAX:
            raise ProtocolError(f"a Content-Length of {text[:_SHOWN_CHARACTERS]!r}")
        length = int(text)
        if length > self._body_bytes_max:
            raise ProtocolError(
                f"a body of {length} bytes; at most {self._body_bytes_max} are read"
            )
        return length


def parse_headers(block: bytes) -> dict[str, str]:
    """Return the headers of a block of `Name: value` lines; of a repeated one the last.

    Raises ProtocolError at a line that is none. An empty block has no headers.
    """
    headers: dict[str, str] = {}
    for line in block.decode("utf-8", "replace").split("\n"):
        # A variable's name may hold a colon, but no colon and blank.
        name, separator, value = line.partition(": ")
        if separator:
            headers[name] = value
        elif line.endswith(":"):
            headers[line[:-1]] = ""
        elif line:
            raise ProtocolError(f"no header line: {line[:_SHOWN_CHARACTERS]!r}")
    return headers
