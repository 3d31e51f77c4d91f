"""Python's side of the packed records: strings of ledger entries, tails of calls, whole calls."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from authz.causes import NORMAL_CAUSES, restore_cause, shorten_cause
from authz.errors import InvariantError
from authz.reasons import BILLING_OF, CLASS_OF, Billing, CallClass, Direction
from authz.store.constants import Kind, Mark, State
from authz.store.layouts import (
    CALL_HEAD,
    CALL_LEG,
    LEDGER_HEAD,
    LEDGER_LEG,
    TOMBSTONE,
    TOMBSTONE_LEG,
)
from authz_ext.briefing import pack_tail
from authz_ext.movements import MovementReader
from authz_ext.packing import pack_strings

_u16 = struct.Struct(">H")


def unpack_strings(data: bytes, position: int = 0) -> list[str]:
    """Return every text that `pack_strings` has put from `position` to the end."""
    texts = []
    while position < len(data):
        end = position + 1 + data[position]
        if end > len(data):
            raise InvariantError("a record's text runs past its end")
        texts.append(data[position + 1 : end].decode())
        position = end
    return texts


def pack_tail_rates(rates: Sequence[bytes]) -> bytes:
    """Return the end of a call's tail: a packed rate for each leg, or nothing for one."""
    return b"".join([part for rate in rates for part in (_u16.pack(len(rate)), rate)])


class CallTail(NamedTuple):
    """What only the daemon reads of a call: who was called, and the rates it is pinned to.

    `rates` has, per leg, a packed rate or nothing for a leg that is not charged by time.
    """

    number: str
    dialled: str
    switch: str
    rates: tuple[bytes, ...]

    def pack(self) -> bytes:
        """Return the opaque tail of a call record."""
        return pack_tail(self.number, self.dialled, self.switch, pack_tail_rates(self.rates))

    @classmethod
    def unpack(cls, data: bytes, legs: int) -> CallTail:
        """Return the tail of a record with that many legs."""
        position = 0
        texts = []
        for _ in range(3):
            end = position + 1 + data[position]
            texts.append(data[position + 1 : end].decode())
            position = end
        rates = []
        for _ in range(legs):
            (length,) = _u16.unpack_from(data, position)
            position += _u16.size
            rates.append(data[position : position + length])
            position += length
        return cls(texts[0], texts[1] or texts[0], texts[2], tuple(rates))


class CallRecord(NamedTuple):
    """A call as stored: head and legs as in layouts, tail decoded."""

    head: Any
    legs: tuple[Any, ...]
    tail: CallTail

    @property
    def state(self) -> State:
        """Return whether the call is open, an orphan or only a mark."""
        return State(self.head.state)

    @property
    def call_class(self) -> CallClass:
        """Return the class of the number."""
        return CallClass(self.head.call_class)

    @property
    def direction(self) -> Direction:
        """Return the account's view of the call."""
        return Direction(self.head.direction)


def unpack_call(data: bytes) -> CallRecord:
    """Return a call record; raises InvariantError if it is not one."""
    try:
        head = CALL_HEAD.unpack(data)
        legs = tuple(
            CALL_LEG.unpack(data, CALL_HEAD.size + leg * CALL_LEG.size) for leg in range(head.legs)
        )
        if head.state == State.ENDED:
            return CallRecord(head, legs, CallTail("", "", "", ()))
        tail = CallTail.unpack(data[CALL_HEAD.size + head.legs * CALL_LEG.size :], head.legs)
    except (struct.error, IndexError) as error:
        raise InvariantError(f"a call record cannot be read: {error}") from error
    return CallRecord(head, legs, tail)


class Tombstone(NamedTuple):
    """What is kept of a settled call."""

    seconds: int
    billings: tuple[Billing, ...]
    costs: tuple[int, ...]


def unpack_tombstone(data: bytes) -> Tombstone:
    """Return a settled call's tombstone."""
    head = TOMBSTONE.unpack(data)
    legs = [
        TOMBSTONE_LEG.unpack(data, TOMBSTONE.size + leg * TOMBSTONE_LEG.size)
        for leg in range(head.legs)
    ]
    return Tombstone(
        head.seconds, tuple(Billing(leg.billing) for leg in legs), tuple(leg.cost for leg in legs)
    )


class LedgerLeg(NamedTuple):
    """One account's movement: amount (negative: a charge) and balance after it, in micros."""

    account: str
    billing: Billing
    sequence: int
    amount: int
    balance: int


class LedgerEntry(NamedTuple):
    """One movement of money, over all its legs, leaf first."""

    sequence: int
    kind: Kind
    marks: Mark
    call_class: CallClass
    direction: Direction
    seconds: int
    booked_us: int
    started_at: int
    legs: tuple[LedgerLeg, ...]
    #: The call's id, or the caller's reference.
    reference: str
    number: str
    description: str
    #: Of a refund: the call whose charge it gives back; empty otherwise.
    refunded_call: str = ""


def ledger_strings(
    accounts: Sequence[str],
    reference: str,
    number: str = "",
    description: str = "",
    refunded_call: str = "",
) -> bytes:
    """Return the strings that a script appends to a ledger entry."""
    # The last is left out where it is empty: a ledger is mostly what fills the store.
    last = (refunded_call,) if refunded_call else ()
    return pack_strings((*accounts, reference, number, description, *last))


#: Members by their number: to ask an enumeration costs more than the rest of an entry.
_KIND_OF = {int(kind): kind for kind in Kind}
_DIRECTION_OF = tuple(Direction)
_MARKS_OF = tuple(Mark(number) for number in range(2 * max(Mark)))


def unpack_ledger_entry(entry_id: bytes, data: bytes) -> LedgerEntry:
    """Return the ledger entry with this id in its stream, as the scripts have packed it.

    Raises InvariantError, struct.error, IndexError or ValueError for what is none.
    """
    head = LEDGER_HEAD.unpack(data)
    kind = _KIND_OF.get(head.kind)
    if kind is None:
        raise InvariantError(f"ledger entry {head.sequence} has kind {head.kind}")
    if not head.legs:
        raise InvariantError(f"ledger entry {head.sequence} has no leg")
    texts = unpack_strings(data, LEDGER_HEAD.size + head.legs * LEDGER_LEG.size)
    if len(texts) - head.legs not in (3, 4):
        raise InvariantError(f"ledger entry {head.sequence} has {len(texts)} texts")
    legs = []
    for number in range(head.legs):
        leg = LEDGER_LEG.unpack(data, LEDGER_HEAD.size + number * LEDGER_LEG.size)
        billing = BILLING_OF[leg.billing]
        legs.append(LedgerLeg(texts[number], billing, leg.sequence, leg.amount, leg.balance))
    return LedgerEntry(
        head.sequence,
        kind,
        _MARKS_OF[head.marks],
        CLASS_OF[head.call_class],
        _DIRECTION_OF[head.direction],
        head.seconds,
        # The id begins with the store's clock in milliseconds.
        int(entry_id.partition(b"-")[0]) * 1_000,
        head.started_at,
        tuple(legs),
        reference=texts[head.legs],
        number=texts[head.legs + 1],
        description=restore_cause(texts[head.legs + 2]),
        refunded_call="".join(texts[head.legs + 3 :]),
    )


#: Reads what `unpack_ledger_entry` reads, as rows of the archive, ten times as fast; whatever is
#: not plain it leaves to that.
MOVEMENTS = MovementReader(
    LEDGER_HEAD.places(),
    LEDGER_LEG.places(),
    head_size=LEDGER_HEAD.size,
    leg_size=LEDGER_LEG.size,
    kinds=max(Kind),
    marks=len(_MARKS_OF),
    classes=len(CLASS_OF),
    directions=len(_DIRECTION_OF),
    billings=len(BILLING_OF),
    causes={shorten_cause(name): name for name in NORMAL_CAUSES.values()},
)
