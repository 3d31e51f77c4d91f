"""What a request and its script cost to read and write: JSON, RESP, packed records."""

from __future__ import annotations

from typing import Any

import hiredis
import msgspec
import pytest

from authz.hooks.bodies import JsonBody
from authz.model import AuthorizeRequest, Grant, GrantLeg
from authz.store.connection import pack_command
from authz.store.layouts import AUTHORIZE, LEG_REQUEST
from authz.store.replies import reply_error

pytestmark = pytest.mark.benchmark
_BODY = (
    b'{"call_id":"5f1c64a0-6a0e-4b55-9c3c-0c9b53b3a0c1","account":"acme-sales",'
    b'"to":"+14155550100","from":"+13105550100","direction":"outbound","switch":"fs-1"}'
)
_GRANT = Grant(
    call_id="5f1c64a0-6a0e-4b55-9c3c-0c9b53b3a0c1",
    allowed=True,
    reason="ok",
    class_="national",
    number="+14155550100",
    seconds=60,
    final=False,
    extend_at=45,
    ring_seconds=180,
    legs=(
        GrantLeg("acme-sales", "per_minute", "0.01", "0.01", "9.99"),
        GrantLeg("acme", "per_minute", "0.005", "0.005", "249.995"),
    ),
)
_KEYS = [b"authz:{17}:account:acme-sales"] * 10
_ARGUMENTS = [b"\0" * size for size in (59, 16, 46, 8, 60, 20, 12, 12, 139, 139)]
_REPLY = b"*11\r\n" + b"".join(
    b":%d\r\n" % value for value in (0, 60, 0, 0, 1_800_000_000_000_000, 3, 10, 99, 3, 5, 249)
)


def test_read_authorize(benchmark: Any) -> None:
    benchmark.group = "JSON"
    benchmark(JsonBody(AuthorizeRequest).decode, _BODY)


def test_write_grant(benchmark: Any) -> None:
    benchmark.group = "JSON"
    benchmark(msgspec.json.Encoder().encode, _GRANT)


def test_write_command(benchmark: Any) -> None:
    benchmark.group = "RESP"
    benchmark(pack_command, (b"EVALSHA", "0" * 40, len(_KEYS), *_KEYS, *_ARGUMENTS))


def test_read_reply(benchmark: Any) -> None:
    benchmark.group = "RESP"
    reader = hiredis.Reader(replyError=reply_error)

    def read() -> Any:
        reader.feed(_REPLY)
        return reader.gets()

    assert benchmark(read)[1] == 60


@pytest.mark.parametrize("layout", [AUTHORIZE, LEG_REQUEST], ids=lambda layout: layout.name)
def test_pack_record(benchmark: Any, layout: Any) -> None:
    benchmark.group = "packed records"
    values = dict.fromkeys(layout.names, 1)
    benchmark(lambda: layout.pack(**values))


def test_unpack_record(benchmark: Any) -> None:
    benchmark.group = "packed records"
    benchmark(AUTHORIZE.unpack, AUTHORIZE.pack())
