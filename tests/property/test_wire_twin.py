"""What the store's connection reads where it lies is what hiredis would have read.

The same replies, cut anywhere, go to a connection and, whole, to hiredis alone: every command must
get the same from both, and a reply that nobody asked for must end the connection at the same place.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import Any

import hiredis
from hypothesis import example, given
from hypothesis import strategies as st

from authz import meters
from authz.errors import NotExecuted, StoreReplyError
from authz.store.connection import Connection
from authz.store.health import StoreHealth
from authz.store.scripts import Script

_LONG_NS = 60 * 10**9
_INCOMPLETE = object()
#: What a command can be: of a script that answers integers, of another one, or of none.
_KINDS = (Script("a", 1, "", "0" * 40, legs=2), Script("b", 1, "", "1" * 40), None)


def bulk(text: bytes) -> bytes:
    """Return a string as a reply."""
    return b"$%d\r\n%s\r\n" % (len(text), text)


INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=17).map(
    lambda numbers: bulk(struct.pack(f">{len(numbers)}q", *numbers))
)
SINGLE = st.one_of(
    INTEGERS,
    INTEGERS,
    st.binary(max_size=150).map(bulk),
    st.integers(0, 20).map(lambda count: bulk(b"\r\n$8\r\n" * count)),
    st.sampled_from(
        [
            b"+OK\r\n", b":-7\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"-ERR no\r\n",
            b"-OOM full\r\n", b"-NOSCRIPT none\r\n", b"+\r\n", b":0\r\n", b"$0\r\n\r\n",
            # What hiredis takes, too, though it is no protocol: another end behind a string.
            b"$8\r\n12345678xx", b"$8\r\n12345678\n\r", b"$08\r\n12345678\r\n",
            # And what it does not.
            b"$8\n12345678\r\n", b"$+8\r\n12345678\r\n", b"$8 \r\n12345678\r\n", b"HTTP/1.1\r\n",
            b"$99999999999999999999\r\n", b"$\r\n\r\n",
        ]
    ),
)  # fmt: skip
REPLY = st.recursive(
    SINGLE,
    lambda inner: st.lists(inner, max_size=4).map(
        lambda parts: b"*%d\r\n%s" % (len(parts), b"".join(parts))
    ),
    max_leaves=6,
)


class Transport:
    """Takes everything, and remembers whether it was ended."""

    closing = False

    def write(self, data: bytes) -> None:
        """Have sent it."""

    def is_closing(self) -> bool:
        """Return whether the connection was given up."""
        return self.closing

    def abort(self) -> None:
        """End it."""
        self.closing = True

    def close(self) -> None:
        """End it, too."""


def outcome(error: BaseException | None, value: Any) -> Any:
    """Return a value or an error as what can be compared."""
    if error is not None:
        return type(error).__name__, str(error)
    if isinstance(value, list):
        return [outcome(*((one, None) if isinstance(one, Exception) else (None, one)))
                for one in value]  # fmt: skip
    return value


def read_by_hiredis(stream: bytes, kinds: list[Script | None]) -> tuple[list[Any], bool]:
    """Return what the commands are answered, and whether the connection goes on."""
    reader = hiredis.Reader(replyError=_error, notEnoughData=_INCOMPLETE)
    outcomes: list[Any] = []
    try:
        reader.feed(stream)
        while (value := reader.gets()) is not _INCOMPLETE:
            if len(outcomes) == len(kinds):
                return outcomes, False
            outcomes.append(_answer(kinds[len(outcomes)], value))
    except hiredis.HiredisError:
        return outcomes, False
    return outcomes, True


def _error(text: str) -> Exception:
    code = text.partition(" ")[0]
    if code in {"OOM", "NOSCRIPT"}:
        return NotExecuted(text, code)
    return StoreReplyError(code, text)


def _answer(kind: Script | None, value: Any) -> Any:
    if isinstance(value, Exception):
        return outcome(value, None)
    if kind is None or kind.legs is None or not isinstance(value, bytes):
        return outcome(None, value)
    if len(value) % 8 or not 8 <= len(value) <= 136:
        text = f"a script has answered {len(value)} bytes, which are no integers"
        return "InvariantError", text
    return list(struct.unpack(f">{len(value) // 8}q", value))


async def read_by_connection(pieces: list[bytes], kinds: list[Script | None]) -> Any:
    """Return the same as `read_by_hiredis`."""
    connection = Connection(asyncio.get_running_loop(), StoreHealth(lambda: None))
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    deadline_ns = meters.now_ns() + _LONG_NS
    commands = [connection.submit(b"x", deadline_ns, kind) for kind in kinds]
    connection.flush()
    for piece in pieces:
        if not transport.closing:
            connection.data_received(piece)
    answered = [one for one in commands if one.done()]
    assert answered == commands[: len(answered)]
    outcomes = [
        outcome(one.exception(), None if one.exception() else one.result()) for one in answered
    ]
    connection.connection_lost(None)
    return outcomes, not transport.closing


@given(
    replies=st.lists(REPLY, max_size=12),
    kinds=st.lists(st.sampled_from(_KINDS), max_size=12),
    cuts=st.lists(st.integers(0, 600), max_size=8),
    lost=st.integers(0, 3),
)
@example([b"*1\r\n*2\r\n:1\r\n"] + [bulk(b"12345678")] * 2, list(_KINDS[:1]) * 2, [16], 0)
@example([b"+OK\r\n", b"*2\r\n" + bulk(b"12345678") * 2], [None, _KINDS[0]], [9], 0)
@example([b"+OK\r\n", bulk(b"ab" + bulk(b"12345678"))], [None, _KINDS[0]], [12], 0)
@example([b":8\r\n", b"+abcdefg\r\n"], [_KINDS[0], None], [], 0)
@example([bulk(b"12345678")] * 3, list(_KINDS[:1]) * 2, [], 0)
@example([bulk(b"12345678")] * 2, list(_KINDS[:1]) * 2, list(range(40)), 1)
def test_the_same_replies_are_read(
    replies: list[bytes], kinds: list[Script | None], cuts: list[int], lost: int
) -> None:
    stream = b"".join(replies)
    stream = stream[: len(stream) - lost]
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[at:to] for at, to in itertools.pairwise(places)]
    expected = read_by_hiredis(stream, kinds)
    assert asyncio.run(read_by_connection(pieces, kinds)) == expected
