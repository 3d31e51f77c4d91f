"""Entries of the store's streams as rows of the archive's tables."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from authz.errors import InvariantError
from authz.store.records import MOVEMENTS, LedgerEntry, unpack_ledger_entry

#: A row by the names of its columns.
Row = dict[str, Any]
#: A row of movements: its values in the order of the table's columns.
Values = tuple[Any, ...]
#: A stream's entry as the store answers it: its id, and names and values in turn.
Entry = tuple[bytes, Sequence[bytes]]

_encode = msgspec.json.Encoder().encode
#: What every event says besides its own facts.
_EVENT_FIELDS: Final = ("event", "account", "at")


class Unreadable(InvariantError):
    """An entry is not what its stream consists of."""


def read_movements(bucket: int, page: list[Entry], sequence: int) -> tuple[list[Values], int]:
    """Return the rows of a page's first entries, and how many entries those are.

    It ends before the first one that is not the next after `sequence`, or is not ordinary: what
    that is, is for `read_movement` to say.
    """
    return MOVEMENTS.read(bucket, page, sequence + 1)


def read_movement(entry: Entry) -> LedgerEntry:
    """Return the ledger entry; raises Unreadable."""
    entry_id, fields = entry
    try:
        return unpack_ledger_entry(entry_id, fields[1])
    except (InvariantError, struct.error, IndexError, ValueError) as error:
        raise Unreadable(f"entry {entry_id.decode()}: {error}") from error


def movement_rows(bucket: int, entry: LedgerEntry) -> list[Row]:
    """Return a row for each leg of a ledger entry, leaf first."""
    origin = entry.legs[0].account
    return [
        {
            "bucket": bucket,
            "sequence": entry.sequence,
            "leg": number,
            "account": leg.account,
            "origin": origin,
            "kind": int(entry.kind),
            "marks": int(entry.marks),
            "class": int(entry.call_class),
            "direction": int(entry.direction),
            "billing": int(leg.billing),
            "seconds": entry.seconds,
            "booked_us": entry.booked_us,
            "started_at": entry.started_at,
            "amount_micros": leg.amount,
            "balance_micros": leg.balance,
            "account_sequence": leg.sequence,
            "reference": clean_text(entry.reference),
            "number": clean_text(entry.number),
            "description": clean_text(entry.description),
            "refunded_call": clean_text(entry.refunded_call),
        }
        for number, leg in enumerate(entry.legs)
    ]


def event_row(bucket: int, entry: Entry) -> Row:
    """Return the row of an alert or recharge request; raises Unreadable."""
    entry_id, _ = entry
    facts = _named(entry)
    try:
        event, account, at = (facts.pop(name) for name in _EVENT_FIELDS)
        moment = int(at)
    except (KeyError, ValueError) as error:
        raise Unreadable(f"entry {entry_id.decode()}: {error!r}") from error
    return {
        "id": event_id(bucket, entry_id),
        "bucket": bucket,
        "entry_id": entry_id.decode(),
        "event": event,
        "account": account,
        "at": moment,
        "data": _encode(facts).decode(),
    }


def event_id(bucket: int, entry_id: bytes) -> str:
    """Return the id under which an event is known outside."""
    return f"evt_{bucket}_{entry_id.decode().replace('-', '_')}"


def change_row(entry: Entry) -> Row:
    """Return the row of a change that an operator made; raises Unreadable."""
    entry_id, _ = entry
    facts = _named(entry)
    texts = ("who", "remote", "action", "target", "detail")
    try:
        return {
            "id": f"chg_{entry_id.decode().replace('-', '_')}",
            "at": int(facts["at"]),
            "status": int(facts["status"]),
            **{name: facts[name] for name in texts},
        }
    except (KeyError, ValueError) as error:
        raise Unreadable(f"entry {entry_id.decode()}: {error!r}") from error


def clean_text(text: str) -> str:
    """Return a text that every database keeps: PostgreSQL knows no NUL."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def _named(entry: Entry) -> dict[str, str]:
    fields = [clean_text(value.decode(errors="replace")) for value in entry[1]]
    return dict(zip(fields[::2], fields[1::2], strict=True))
