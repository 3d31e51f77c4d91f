"""What lies under any key of the store, decoded by the layouts: for `authz show`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from authz.engine.clock import format_moment
from authz.engine.quotes import discount_text
from authz.errors import InvariantError, NotFound
from authz.reasons import Billing
from authz.store.client import StoreClient
from authz.store.constants import Kind
from authz.store.layouts import ACCOUNT_STATE, LAYOUT_NUMBER, REFERENCE
from authz.store.records import unpack_call, unpack_ledger_entry, unpack_tombstone
from authz_ext.rating import Rate

#: Members of a set, a hash or a stream that are shown; the rest is counted.
SHOWN_MAX: Final = 20
_KIND_OF_KEY: Final = re.compile(r"authz:\{\d+\}:(?P<kind>[a-z]+)")
_AMOUNT_BYTES = 8
_PLAIN_BYTES_MAX = 1_024
_Decode = Callable[[bytes], Any]


async def describe_key(client: StoreClient, key: bytes) -> dict[str, Any]:
    """Return key, type and decoded value of what is stored under `key`; raises NotFound.

    Amounts are micros and times as the layouts name them: what is shown is what is stored. Of
    large values only the beginning is read.
    """
    store_type = (await client.execute("TYPE", key)).decode()
    if store_type == "none":
        raise NotFound(f"there is no key {key.decode(errors='replace')}")
    match = _KIND_OF_KEY.match(key.decode(errors="replace"))
    kind = match["kind"] if match else ""
    described: dict[str, Any] = {
        "key": key.decode(errors="replace"),
        "type": store_type,
        "expires_in_seconds": await client.execute("TTL", key),
    }
    if described["expires_in_seconds"] < 0:
        described["expires_in_seconds"] = None
    reader = _READERS.get(store_type)
    if reader is None:
        return described
    return described | await reader(client, key, kind)


async def _string(client: StoreClient, key: bytes, kind: str) -> dict[str, Any]:
    decode = _STRINGS.get(kind)
    if decode is not None:
        data: bytes = await client.execute("GET", key)
        return {"bytes": len(data), "value": _decoded(decode, data)}
    length = await client.execute("STRLEN", key)
    beginning = await client.execute("GETRANGE", key, 0, _PLAIN_BYTES_MAX - 1)
    return {"bytes": length, "value": _plain(beginning)}


async def _hash(client: StoreClient, key: bytes, kind: str) -> dict[str, Any]:
    total = await client.execute("HLEN", key)
    _, flat = await client.execute("HSCAN", key, 0, "COUNT", SHOWN_MAX)
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[:SHOWN_MAX]
    fields = {}
    for name, data in pairs:
        if kind == "closed":
            fields[name.hex()] = _decoded(_tombstone, data)
        elif kind == "account":
            fields[_text(name)] = _decoded(_ACCOUNT_FIELDS.get(name, _text), data)
        else:
            fields[_text(name)] = _text(data)
    return {"fields": total, "value": fields}


async def _sorted_set(client: StoreClient, key: bytes, kind: str) -> dict[str, Any]:
    total = await client.execute("ZCARD", key)
    flat = await client.execute("ZRANGE", key, 0, SHOWN_MAX - 1, "WITHSCORES")
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {"members": total, "value": {_text(member): _text(score) for member, score in pairs}}


async def _stream(client: StoreClient, key: bytes, kind: str) -> dict[str, Any]:
    total = await client.execute("XLEN", key)
    entries = await client.execute("XREVRANGE", key, "+", "-", "COUNT", SHOWN_MAX)
    latest = {}
    for entry_id, flat in entries:
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if kind == "ledger":
            decode = functools.partial(_ledger_entry, entry_id)
            latest[_text(entry_id)] = _decoded(decode, fields[b"e"])
        else:
            latest[_text(entry_id)] = {_text(name): _text(data) for name, data in fields.items()}
    return {"entries": total, "value": latest}


async def _list(client: StoreClient, key: bytes, kind: str) -> dict[str, Any]:
    total = await client.execute("LLEN", key)
    items = await client.execute("LRANGE", key, -SHOWN_MAX, -1)
    return {"items": total, "value": [_text(item) for item in items]}


def _decoded(decode: _Decode, data: bytes) -> Any:
    """Return what a decoder makes of a value, or why it cannot, with the bytes themselves."""
    try:
        return decode(data)
    except (InvariantError, ValueError) as error:
        return {"unreadable": str(error), "hex": data[:_PLAIN_BYTES_MAX].hex()}


def _plain(data: bytes) -> str | dict[str, str]:
    """Return text as it is and anything else, such as a filter or a chunk of a deck, as hex."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"hex": data[:64].hex()}


def _text(data: bytes) -> str:
    return data[:4096].decode(errors="backslashreplace")


def _account_state(data: bytes) -> dict[str, int]:
    if len(data) != ACCOUNT_STATE.size:
        raise InvariantError(f"{len(data)} bytes, not the {ACCOUNT_STATE.size} of an account")
    state: dict[str, int] = ACCOUNT_STATE.unpack(data)._asdict()
    return state


def _call(data: bytes) -> dict[str, Any]:
    record = unpack_call(data)
    head = record.head._asdict()
    head["request"] = head["request"].hex()
    return {
        **head,
        "state": record.state.name.lower(),
        "call_class": record.call_class.label,
        "direction": record.direction.label,
        "number": record.tail.number,
        "dialled": record.tail.dialled,
        "switch": record.tail.switch,
        "legs": [
            {**leg._asdict(), "billing": Billing(leg.billing).label, "rate": rate}
            for leg, rate in zip(record.legs, _rates(record.tail.rates), strict=False)
        ],
    }


def _rates(packed: tuple[bytes, ...]) -> list[str | None]:
    return [_rate(Rate.unpack(rate)) if rate else None for rate in packed]


def _rate(rate: Rate) -> str:
    discount = discount_text(rate)
    price = f"{rate.per_minute_text()} a minute"
    return price if discount is None else f"{price}, less {discount} %"


def _tombstone(data: bytes) -> dict[str, Any]:
    tombstone = unpack_tombstone(data)
    return {
        "seconds": tombstone.seconds,
        "legs": [
            {"billing": billing.label, "cost": cost}
            for billing, cost in zip(tombstone.billings, tombstone.costs, strict=True)
        ],
    }


def _ledger_entry(entry_id: bytes, data: bytes) -> dict[str, Any]:
    entry = unpack_ledger_entry(entry_id, data)
    return {
        **entry._asdict(),
        "kind": entry.kind.label,
        "marks": [mark.name.lower() for mark in entry.marks if mark.name],
        "call_class": entry.call_class.label,
        "direction": entry.direction.label,
        "booked_at": format_moment(entry.booked_us // 1_000_000),
        "legs": [{**leg._asdict(), "billing": leg.billing.label} for leg in entry.legs],
    }


def _reference(data: bytes) -> dict[str, Any]:
    if len(data) != REFERENCE.size or data[0] != LAYOUT_NUMBER:
        raise InvariantError("this is not the record of a reference")
    record: dict[str, Any] = REFERENCE.unpack(data)._asdict()
    return {**record, "kind": Kind(record["kind"]).label}


def _amounts(data: bytes) -> list[int]:
    return [
        int.from_bytes(data[start : start + _AMOUNT_BYTES], "big", signed=True)
        for start in range(0, len(data), _AMOUNT_BYTES)
    ]


_ACCOUNT_FIELDS: Final[dict[bytes, _Decode]] = {
    b"s": _account_state,
    b"c": msgspec.json.decode,
}
_STRINGS: Final[dict[str, _Decode]] = {
    "call": _call,
    "reference": _reference,
    "refunded": _amounts,
}
_READERS: Final = {
    "string": _string,
    "hash": _hash,
    "zset": _sorted_set,
    "stream": _stream,
    "list": _list,
}
