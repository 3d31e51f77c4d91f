"""HTTP/1.1 as a load generator needs it: requests made of ready pieces, answers cut apart."""

from __future__ import annotations

from typing import Final

from loadtest.errors import LoadTestError

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"Content-Length: "
#: More than any answer of the hook API; whoever sends more is not speaking it.
_ANSWER_BYTES_MAX: Final = 1_048_576


def request_start(path: str, body_start: bytes, rest_bytes: int) -> bytes:
    """Return a POST whose body begins with `body_start` and has `rest_bytes` more to come."""
    return (
        b"POST %b HTTP/1.1\r\nHost: authz\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body_start) + rest_bytes, body_start)
    )


class AnswerParser:
    """Cuts what a connection sends into answers. They must carry a length (ours do)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return (status, body) of every answer that is complete now; LoadTestError if none is."""
        if self._rest:
            data = self._rest + data
        answers: list[tuple[int, bytes]] = []
        position = 0
        while True:
            head_end = data.find(_HEAD_END, position)
            if head_end < 0:
                break
            body_start = head_end + len(_HEAD_END)
            body_end = body_start + self._body_bytes(data, position, head_end)
            if body_end > len(data):
                break
            answers.append((int(data[position + 9 : position + 12]), data[body_start:body_end]))
            position = body_end
        self._rest = data[position:]
        if len(self._rest) > _ANSWER_BYTES_MAX:
            raise LoadTestError(f"an answer has no end after {_ANSWER_BYTES_MAX} bytes")
        return answers

    def _body_bytes(self, data: bytes, start: int, head_end: int) -> int:
        if not data.startswith(b"HTTP/1.", start):
            raise LoadTestError(f"this is no answer in HTTP/1: {data[start : start + 40]!r}")
        at = data.find(_LENGTH, start, head_end)
        if at < 0:
            return _length_in(data[start:head_end])
        line_end = data.find(b"\r\n", at, head_end + 2)
        return int(data[at + len(_LENGTH) : line_end])


def _length_in(head: bytes) -> int:
    """Return the length from a head that spells its name in another way."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    raise LoadTestError(f"this answer has no Content-Length: {head[:80]!r}")
