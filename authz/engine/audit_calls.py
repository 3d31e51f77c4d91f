"""The audit's sums over one bucket's open calls: holds, reported use, trunks, counters.

What a tree's accounts say is compared with what its calls say. Calls move while they are read;
an account counts only if its state was the same before and after, and an account that differs
is a finding only when it differs twice.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import msgspec

from authz.engine.audit_ledger import DEADLINE_MS, PAGE, LedgerWalk, Report
from authz.errors import InvariantError
from authz.model import CHAIN_LENGTH_MAX, AccountConfig
from authz.reasons import Billing, CallClass, Direction
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.constants import Mark, State
from authz.store.layouts import ACCOUNT_STATE
from authz.store.records import CallRecord, unpack_call

_PASSES_MAX: Final = 6
_PAUSE_SECONDS: Final = 0.05
_MAY_EXCEED = Mark.DEGRADED | Mark.REOPENED
_decode_config = msgspec.json.Decoder(AccountConfig).decode


class Node(NamedTuple):
    """What the audit needs to know of an account's configuration."""

    parent: str | None
    unlimited: bool


class Sums:
    """What the open calls say an account's state should be."""

    __slots__ = ("by_class", "calls", "held", "trunks_inbound", "trunks_outbound", "used")

    def __init__(self) -> None:
        self.held = 0
        self.used = 0
        self.calls = 0
        self.trunks_inbound = 0
        self.trunks_outbound = 0
        self.by_class = dict.fromkeys(CallClass, 0)

    def add(self, record: CallRecord, leg: Any) -> None:
        """Count one leg of an open call."""
        self.held += leg.held
        self.used += leg.used
        # Outbound emergency calls count against no limit.
        if record.call_class != CallClass.EMERGENCY or record.direction != Direction.OUTBOUND:
            self.calls += 1
            self.by_class[record.call_class] += 1
        if leg.billing in (Billing.TRUNK, Billing.BURST):
            if record.direction == Direction.INBOUND:
                self.trunks_inbound += 1
            else:
                self.trunks_outbound += 1

    def expected(self) -> dict[str, tuple[str, int]]:
        """Return invariant and value for each field of an account's state."""
        fields = {
            "held": ("held is the sum of open holds", self.held),
            "used": ("used is the sum of reported use", self.used),
            "calls": ("calls are the open calls", self.calls),
            "trunks_inbound": ("trunks are the open legs on one", self.trunks_inbound),
            "trunks_outbound": ("trunks are the open legs on one", self.trunks_outbound),
        }
        for call_class, count in self.by_class.items():
            if call_class != CallClass.EMERGENCY:
                fields[f"calls_{call_class.label}"] = ("calls of a class are the open ones", count)
        return fields


class CallAudit:
    """Compares the accounts of one bucket with its open calls."""

    def __init__(self, client: StoreClient, tag: str, walk: LedgerWalk, report: Report) -> None:
        self._client = client
        self._tag = tag
        self._walk = walk
        self._report = report
        #: Complaints about single calls of the last pass, and those already reported.
        self._doubts: set[tuple[str, str, str, str]] = set()
        self.nodes: dict[str, Node] = {}
        self.calls = 0
        #: Accounts that moved during every pass, so that nothing can be said of them.
        self.moving: tuple[str, ...] = ()

    async def run(self) -> None:
        """Make passes until every account has stood still in one, or six were made."""
        pending: set[str] | None = None
        differing: dict[str, set[str]] = {}
        doubts: set[tuple[str, str, str, str]] = set()
        for number in range(_PASSES_MAX):
            if number:
                await asyncio.sleep(_PAUSE_SECONDS)
            await self._load_tree()
            names = set(self.nodes) if pending is None else pending & set(self.nodes)
            before = await self._states(names)
            self._doubts = set()
            # Calls that looked wrong are looked at again, whatever their accounts do.
            sums = await self._sum_calls(names | {account for account, *_ in doubts})
            after = await self._states(names)
            pending = {
                name
                for name in names
                if before[name] != after[name]
                or not self._agrees(name, before[name], sums.get(name), differing)
            }
            for doubt in sorted(self._doubts & doubts):
                self._report(*doubt)
            doubts = self._doubts - doubts
            if not pending and not doubts:
                break
        self.moving = tuple(sorted(pending or ()))

    def _agrees(
        self,
        name: str,
        packed: bytes | None,
        sums: Sums | None,
        differing: dict[str, set[str]],
    ) -> bool:
        """Compare an account that stood still; report what differs for the second time."""
        if packed is None:
            return True
        state = ACCOUNT_STATE.unpack(packed)
        wrong = {
            field: (invariant, value)
            for field, (invariant, value) in (sums or Sums()).expected().items()
            if getattr(state, field) != value
        }
        if not wrong:
            return True
        if differing.get(name) != set(wrong):
            differing[name] = set(wrong)
            return False
        for field, (invariant, value) in wrong.items():
            self._report(name, invariant, f"{field} {value}", str(getattr(state, field)))
        return True

    async def _load_tree(self) -> None:
        """Read every account of the bucket, from its roots down."""
        level: list[str] = [""]
        for _ in range(CHAIN_LENGTH_MAX):
            below: list[str] = []
            for start in range(0, len(level), PAGE):
                children = await asyncio.gather(
                    *(self._children(name) for name in level[start : start + PAGE])
                )
                below += [name for names in children for name in names]
            new = [name for name in below if name not in self.nodes]
            for start in range(0, len(new), PAGE):
                page = new[start : start + PAGE]
                self.nodes.update(await self._nodes(page))
            level = below

    async def _children(self, name: str) -> list[str]:
        found: list[str] = []
        index = keys.children(self._tag, name)
        first = "-"
        while True:
            page = await self._client.execute(
                "ZRANGEBYLEX", index, first, "+", "LIMIT", 0, PAGE, deadline_ms=DEADLINE_MS
            )
            found += [member.decode() for member in page]
            if len(page) < PAGE:
                return found
            first = f"({found[-1]}"

    async def _nodes(self, names: list[str]) -> dict[str, Node]:
        configs = await asyncio.gather(*(self._field(name, "c") for name in names))
        nodes = {}
        for name, packed in zip(names, configs, strict=True):
            if packed is None:
                continue
            try:
                config = _decode_config(packed)
            except msgspec.DecodeError as error:
                self._report(name, "configuration", "readable", str(error))
                continue
            nodes[name] = Node(config.parent, config.credit_limit == "unlimited")
        return nodes

    async def _field(self, name: str, field: str) -> bytes | None:
        packed: bytes | None = await self._client.execute(
            "HGET", keys.account(self._tag, name), field, deadline_ms=DEADLINE_MS
        )
        return packed

    async def _states(self, names: set[str]) -> dict[str, bytes | None]:
        ordered = sorted(names)
        states: dict[str, bytes | None] = {}
        for start in range(0, len(ordered), PAGE):
            page = ordered[start : start + PAGE]
            packed = await asyncio.gather(*(self._field(name, "s") for name in page))
            states.update(zip(page, packed, strict=True))
        return states

    def _chain(self, leaf: str) -> list[str]:
        chain: list[str] = []
        name: str | None = leaf
        while name is not None and name in self.nodes and len(chain) < CHAIN_LENGTH_MAX:
            chain.append(name)
            name = self.nodes[name].parent
        return chain

    async def _sum_calls(self, wanted: set[str]) -> dict[str, Sums]:
        """Add up the open calls of the trees of `wanted`, in pages over the leases."""
        sums: dict[str, Sums] = {}
        seen: set[bytes] = set()
        cursor = b"0"
        while True:
            cursor, page = await self._client.execute(
                "ZSCAN", keys.leases(self._tag), cursor, "COUNT", PAGE, deadline_ms=DEADLINE_MS
            )
            members = []
            for member in page[::2]:
                leaf = keys.split_member(member)[0]
                if member not in seen and (
                    leaf not in self.nodes or not wanted.isdisjoint(self._chain(leaf))
                ):
                    members.append(member)
            seen.update(members)
            records = await asyncio.gather(*(self._call(member) for member in members))
            for member, packed in zip(members, records, strict=True):
                self._add(member, packed, sums)
            if cursor == b"0":
                break
        self.calls = max(self.calls, len(seen))
        return sums

    async def _call(self, member: bytes) -> bytes | None:
        account, call_id = keys.split_member(member)
        packed: bytes | None = await self._client.execute(
            "GET", keys.call(self._tag, account, call_id), deadline_ms=DEADLINE_MS
        )
        return packed

    def _add(self, member: bytes, packed: bytes | None, sums: dict[str, Sums]) -> None:
        leaf, call_id = keys.split_member(member)
        if packed is None:
            self._doubts.add((leaf, "a lease belongs to a call", "a record", f"none: {call_id}"))
            return
        try:
            record = unpack_call(packed)
        except InvariantError as error:
            self._doubts.add((leaf, "call record", "readable", f"{call_id}: {error}"))
            return
        if record.head.state != State.OPEN:
            found = f"state {record.head.state}: {call_id}"
            self._doubts.add((leaf, "a lease belongs to an open call", "open", found))
            return
        chain = self._chain(leaf)
        if len(chain) != len(record.legs):
            found = f"legs {len(record.legs)}, accounts {len(chain)}: {call_id}"
            self._doubts.add((leaf, "a call has a leg for every account", "as many", found))
            return
        booking = self._walk.bookings.get(keys.call_digest(leaf, call_id))
        if booking is not None and booking.is_final:
            self._doubts.add((leaf, "one final settlement", "not open any more", call_id))
        for name, leg in zip(chain, record.legs, strict=True):
            sums.setdefault(name, Sums()).add(record, leg)
            self._check_room(name, call_id, record, leg)

    def _check_room(self, name: str, call_id: str, record: CallRecord, leg: Any) -> None:
        if leg.held < 0 or leg.used < 0:
            found = f"held {leg.held}, used {leg.used}: {call_id}"
            self._doubts.add((name, "holds are not negative", "at least 0", found))
        may_exceed = bool(Mark(record.head.marks) & _MAY_EXCEED) or self.nodes[name].unlimited
        if leg.held > max(0, leg.room) and not may_exceed:
            found = f"{leg.held}: {call_id}"
            self._doubts.add((name, "a grant fits what was available", f"<= {leg.room}", found))
