"""The audit on real stores: silent about everything true, loud about everything broken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from audit_helper import assert_clean_audit
from books import Books
from calls import authorize, orphan, reserve, settle, settled_call

from authz.engine.audit import AuditReport, audit
from authz.model import Trunks
from authz.reasons import Billing, CallClass, Direction
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.constants import Kind, Mark
from authz.store.layouts import CALL_HEAD, CALL_LEG, LEDGER_HEAD, LEDGER_LEG, TOMBSTONE_LEG


@pytest.fixture
def books(any_store: StoreClient) -> Books:
    """Services on every kind of store in turn."""
    return Books(any_store)


async def _busy_tree(books: Books) -> None:
    """Open a tree in which every kind of movement has happened and calls of all kinds are open."""
    await books.open("acme", "100", trunks=Trunks(inbound=1, outbound=1))
    await books.open("sales", "10", parent="acme")
    await books.debit("sales", "1", "sms")
    for call_id in ("settled", "reopened", "corrected", "orphaned", "running"):
        await authorize(books, "sales", call_id, (60_000, 30_000))
    for call_id in ("reopened", "corrected", "orphaned", "running"):
        await reserve(books, "sales", call_id, (20_000, 10_000), (120_000, 60_000))
    for call_id in ("reopened", "corrected", "orphaned"):
        await orphan(books, "sales", call_id, 2, used_seconds=30)
    await reserve(books, "sales", "reopened", (25_000, 12_000), (120_000, 60_000), used_seconds=40)
    await settle(books, "sales", "corrected", (33_000, 22_000))
    await settle(books, "sales", "settled", (50_000, 40_000))
    await settled_call(books, "sales", "unseen", (5_000, 4_000))
    await books.credit("sales", "0.025", "refund", call_id="settled")
    await authorize(
        books, "acme", "on-trunk", (60_000,), direction=Direction.INBOUND, trunk_covered=True
    )
    await authorize(books, "sales", "911", (0, 0), call_class=CallClass.EMERGENCY, exempt=True)
    await authorize(books, "sales", "800", (0, 0), call_class=CallClass.TOLLFREE, exempt=True)


def _invariants(report: AuditReport) -> set[tuple[str, str]]:
    return {(finding.account, finding.invariant) for finding in report.findings}


async def test_a_busy_tree_is_clean(books: Books) -> None:
    await _busy_tree(books)
    report = await assert_clean_audit(books.client)
    assert (report.buckets, report.accounts, report.calls) == (keys.BUCKETS, 2, 5)
    # Payments 2, sms 1, provisional 3, reversal 1, settled 3 (one a correction), refund 1.
    assert report.entries == 11
    state = await books.state("sales")
    assert (state.calls, state.calls_tollfree, state.calls_national) == (3, 1, 2)
    assert (state.held, state.used) == (240_000, 45_000)


async def test_an_empty_store_is_clean(books: Books) -> None:
    report = await assert_clean_audit(books.client)
    assert (report.accounts, report.calls, report.entries) == (0, 0, 0)


async def test_one_bucket_can_be_audited_alone(store: StoreClient) -> None:
    books = Books(store)
    names = [f"acme{number}" for number in range(8)]
    for name in names:
        await books.open(name, "1")
    done: list[tuple[int, int]] = []
    bucket = keys.TAGS.index(await books.tag("acme3"))
    alone = sum([keys.TAGS.index(await books.tag(name)) == bucket for name in names])
    report = await audit(store, [bucket], lambda one, of: done.append((one, of)))
    assert (report.buckets, report.accounts, report.entries) == (1, alone, alone)
    assert done == [(0, 1), (1, 1)]


async def test_many_calls_and_entries_are_read_in_pages(store: StoreClient) -> None:
    books = Books(store)
    await books.open("acme", "1000")
    await books.open("sales", "1000", parent="acme")
    for start in range(0, 1_200, 100):
        await asyncio.gather(
            *(authorize(books, "sales", f"c{start + n}", (700, 70)) for n in range(100))
        )
        await asyncio.gather(*(books.debit("sales", "0.01", "sms") for _ in range(100)))
    for start in range(0, 300, 100):
        numbers = range(start, start + 100)
        await asyncio.gather(*(settle(books, "sales", f"c{n}", (n, 0)) for n in numbers))
    report = await assert_clean_audit(store)
    assert (report.calls, report.entries) == (900, 1_502)
    assert (await books.state("sales")).held == 900 * 700


async def test_what_moves_meanwhile_is_no_finding(any_store: StoreClient) -> None:
    books = Books(any_store)
    await books.open("acme", "1000")
    for number in range(4):
        await books.open(f"sales{number}", "100", parent="acme")
    stopped = False

    async def traffic(account: str) -> None:
        number = 0
        while not stopped:
            number += 1
            await authorize(books, account, f"c{number}", (500, 50))
            await reserve(books, account, f"c{number}", (100, 10), (900, 90))
            await settle(books, account, f"c{number}", (300, 30))
            await books.debit(account, "0.001", "sms")

    tasks = [asyncio.create_task(traffic(f"sales{number}")) for number in range(4)]
    bucket = keys.TAGS.index(await books.tag("acme"))
    for _ in range(10):
        report = await audit(any_store, [bucket])
        assert report.findings == ()
    stopped = True
    await asyncio.gather(*tasks)
    await assert_clean_audit(any_store)


async def test_a_trimmed_ledger_is_not_whole_without_its_archive(books: Books) -> None:
    await _busy_tree(books)
    ledger = keys.ledger(await books.tag("acme"))
    for length in (8, 5, 1, 0):
        await books.client.execute("XTRIM", ledger, "MAXLEN", length)
        report = await audit(books.client)
        assert report.entries == length
        assert _invariants(report) >= {("", "the ledger is whole")}
    await books.credit("acme", "1")
    await books.set_state("acme", balance=7)
    assert ("acme", "balance is the sum of the ledger") in _invariants(await audit(books.client))


# --- a broken account ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "invariant"),
    [
        ("balance", "balance is the sum of the ledger"),
        ("sequence", "account sequence"),
        ("held", "held is the sum of open holds"),
        ("used", "used is the sum of reported use"),
        ("calls", "calls are the open calls"),
        ("trunks_inbound", "trunks are the open legs on one"),
        ("trunks_outbound", "trunks are the open legs on one"),
        *(
            (f"calls_{call_class.label}", "calls of a class are the open ones")
            for call_class in CallClass
            if call_class != CallClass.EMERGENCY
        ),
    ],
)
@pytest.mark.parametrize("change", [1, -1])
async def test_a_wrong_state_is_found(
    store: StoreClient, field: str, invariant: str, change: int
) -> None:
    books = Books(store)
    await _busy_tree(books)
    right = getattr(await books.state("sales"), field)
    await books.set_state("sales", **{field: right + change})
    report = await audit(store)
    assert _invariants(report) == {("sales", invariant)}
    (finding,) = report.findings
    assert finding.bucket == keys.TAGS.index(await books.tag("sales"))
    assert str(right + change) in finding.found
    await books.set_state("sales", **{field: right})
    await assert_clean_audit(store)


async def test_an_account_that_never_moved_has_no_balance(store: StoreClient) -> None:
    books = Books(store)
    await books.open("acme")
    await books.set_state("acme", balance=1)
    assert _invariants(await audit(store)) == {("acme", "account sequence")}


async def test_a_vanished_account_is_found(store: StoreClient) -> None:
    books = Books(store)
    await books.open("acme", "5")
    account = keys.account(await books.tag("acme"), "acme")
    await store.execute("DEL", account)
    assert _invariants(await audit(store)) == {("acme", "an account is open or closed")}
    await store.execute("HSET", account, "closed", 1)
    assert _invariants(await audit(store)) == {("acme", "a closed account has no balance")}


async def test_an_unreadable_configuration_is_found(store: StoreClient) -> None:
    books = Books(store)
    await books.open("acme")
    await store.execute("HSET", keys.account(await books.tag("acme"), "acme"), "c", "{")
    assert ("acme", "configuration") in _invariants(await audit(store))


# --- a broken ledger -------------------------------------------------------------------------

Entries = list[tuple[bytes, bytes]]


async def _rewrite_ledger(books: Books, change: Callable[[Entries], None]) -> None:
    """Replace the ledger of sales' bucket by what `change` makes of (id, packed entry)."""
    ledger = keys.ledger(await books.tag("sales"))
    entries = [
        (entry_id, fields[1])
        for entry_id, fields in await books.client.execute("XRANGE", ledger, "-", "+")
    ]
    change(entries)
    await books.client.execute("DEL", ledger)
    for entry_id, packed in entries:
        await books.client.execute("XADD", ledger, entry_id, "e", packed)


def _altered(packed: bytes, leg: int, **changes: int) -> bytes:
    offset = LEDGER_HEAD.size + leg * LEDGER_LEG.size
    fields = LEDGER_LEG.unpack(packed, offset)._asdict() | changes
    return packed[:offset] + LEDGER_LEG.pack(**fields) + packed[offset + LEDGER_LEG.size :]


def _with_head(packed: bytes, **changes: int) -> bytes:
    fields = LEDGER_HEAD.unpack(packed)._asdict() | changes
    return LEDGER_HEAD.pack(**fields) + packed[LEDGER_HEAD.size :]


def _lose(index: int) -> Callable[[Entries], None]:
    return lambda entries: entries.__delitem__(index)


def _change(index: int, alter: Callable[[bytes], bytes]) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        entries[index] = (entries[index][0], alter(entries[index][1]))

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_lose(5), ("", "bucket sequence")),
        (_lose(5), ("sales", "account sequence")),
        (_lose(-1), ("", "bucket sequence")),
        (_lose(-1), ("sales", "account sequence")),
        (lambda entries: entries.clear(), ("", "bucket sequence")),
        (lambda entries: entries.clear(), ("acme", "account sequence")),
        (
            _change(4, lambda packed: _altered(packed, 0, balance=1)),
            ("sales", "balance is the sum of the ledger"),
        ),
        (
            _change(4, lambda packed: _altered(packed, 1, amount=-1)),
            ("acme", "balance is the sum of the ledger"),
        ),
        (_change(4, lambda packed: _altered(packed, 1, sequence=77)), ("acme", "account sequence")),
        (_change(3, lambda packed: packed[:40]), ("", "ledger entry")),
        (_change(3, lambda packed: packed + b"\x09"), ("", "ledger entry")),
        (_change(3, lambda packed: _with_head(packed, kind=99)), ("", "ledger entry")),
        (_change(3, lambda packed: _with_head(packed, sequence=1)), ("", "bucket sequence")),
        # The settlement of `settled` becomes provisional, that of `orphaned` final.
        (
            _change(8, lambda packed: _with_head(packed, marks=Mark.PROVISIONAL)),
            ("sales", "one final settlement"),
        ),
        (
            _change(3, lambda packed: _with_head(packed, marks=0)),
            ("sales", "one final settlement"),
        ),
        (
            _change(8, lambda packed: _with_head(packed, marks=Mark.CORRECTION)),
            ("sales", "one final settlement"),
        ),
        (
            _change(8, lambda packed: _altered(packed, 0, amount=1)),
            ("sales", "a call gives no money"),
        ),
        (
            _change(6, lambda packed: _altered(packed, 0, amount=19_000)),
            ("sales", "a reopened call is not charged"),
        ),
        (
            _change(8, lambda packed: _altered(packed, 0, amount=-49_000)),
            ("sales", "a call is charged its cost"),
        ),
    ],
)
async def test_a_wrong_ledger_is_found(
    store: StoreClient, change: Callable[[Entries], None], expected: tuple[str, str]
) -> None:
    books = Books(store)
    await _busy_tree(books)
    assert (await books.ledger("sales"))[8].reference == "settled"
    await _rewrite_ledger(books, change)
    assert expected in _invariants(await audit(store))


async def test_a_call_booked_twice_is_found(store: StoreClient) -> None:
    books = Books(store)
    await _busy_tree(books)
    digest = keys.call_digest("sales", "settled")
    hour = int((await store.execute("TIME"))[0]) // 3600
    prefix = keys.closed_prefix(await books.tag("sales"))
    for back in (0, 1):
        await store.execute("HDEL", prefix + b"%d" % (hour - back), digest)
    await store.execute("DEL", *(await store.execute("KEYS", prefix + b"filter*") or [b"none"]))
    await settled_call(books, "sales", "settled", (50_000, 40_000))
    report = await audit(store)
    assert _invariants(report) == {
        ("sales", "one final settlement"),
        ("sales", "a call is charged its cost"),
    }


async def test_a_wrong_tombstone_is_found(store: StoreClient) -> None:
    books = Books(store)
    await books.open("acme", "5")
    await settled_call(books, "acme", "c1", (70_000,))
    hour = int((await store.execute("TIME"))[0]) // 3600
    closed = keys.closed_prefix(await books.tag("acme")) + b"%d" % hour
    digest = keys.call_digest("acme", "c1")
    packed = await store.execute("HGET", closed, digest)
    wrong = packed[: -TOMBSTONE_LEG.size] + TOMBSTONE_LEG.pack(billing=3, cost=70_001)
    await store.execute("HSET", closed, digest, wrong)
    assert _invariants(await audit(store)) == {("acme", "a call is charged its cost")}
    await store.execute("HSET", closed, digest, packed)
    await assert_clean_audit(store)
    await store.execute("HSET", closed, keys.call_digest("acme", "c2"), packed)
    assert _invariants(await audit(store)) == {("", "one final settlement")}


# --- broken calls ----------------------------------------------------------------------------


async def _replace_call(books: Books, call_id: str, change: Callable[[bytes], bytes]) -> None:
    key = keys.call(await books.tag("sales"), "sales", call_id)
    await books.client.execute("SET", key, change(await books.client.execute("GET", key)))


def _with_leg(leg: int, **changes: int) -> Callable[[bytes], bytes]:
    offset = CALL_HEAD.size + leg * CALL_LEG.size

    def change(packed: bytes) -> bytes:
        fields = CALL_LEG.unpack(packed, offset)._asdict() | changes
        return packed[:offset] + CALL_LEG.pack(**fields) + packed[offset + CALL_LEG.size :]

    return change


async def _lose_record(books: Books) -> None:
    await books.client.execute("DEL", keys.call(await books.tag("sales"), "sales", "running"))


async def _lose_lease(books: Books) -> None:
    leases = keys.leases(await books.tag("sales"))
    await books.client.execute("ZREM", leases, keys.call_member("sales", "running"))


async def _garble_record(books: Books) -> None:
    await _replace_call(books, "running", lambda packed: packed[:50])


async def _lease_an_orphan(books: Books) -> None:
    leases = keys.leases(await books.tag("sales"))
    await books.client.execute("ZADD", leases, 1, keys.call_member("sales", "orphaned"))


async def _lease_a_stranger(books: Books) -> None:
    tag = await books.tag("sales")
    packed = await books.client.execute("GET", keys.call(tag, "sales", "running"))
    await books.client.execute("SET", keys.call(tag, "nobody", "c1"), packed)
    await books.client.execute("ZADD", keys.leases(tag), 1, keys.call_member("nobody", "c1"))


async def _overdraw(books: Books) -> None:
    await _replace_call(books, "running", _with_leg(1, held=60_000, room=59_999))


async def _hold_negative(books: Books) -> None:
    await _replace_call(books, "running", _with_leg(0, held=-1))


async def _bill_otherwise(books: Books) -> None:
    await _replace_call(books, "running", _with_leg(1, billing=Billing.TRUNK))


async def _open_a_settled_one(books: Books) -> None:
    tag = await books.tag("sales")
    packed = await books.client.execute("GET", keys.call(tag, "sales", "running"))
    await books.client.execute("SET", keys.call(tag, "sales", "settled"), packed)
    await books.client.execute("ZADD", keys.leases(tag), 1, keys.call_member("sales", "settled"))


@pytest.mark.parametrize(
    ("breakage", "expected"),
    [
        (_lose_record, ("sales", "a lease belongs to a call")),
        (_lose_record, ("sales", "calls are the open calls")),
        (_lose_lease, ("sales", "held is the sum of open holds")),
        (_lose_lease, ("acme", "used is the sum of reported use")),
        (_garble_record, ("sales", "call record")),
        (_lease_an_orphan, ("sales", "a lease belongs to an open call")),
        (_lease_a_stranger, ("nobody", "a call has a leg for every account")),
        (_overdraw, ("acme", "a grant fits what was available")),
        (_hold_negative, ("sales", "holds are not negative")),
        (_bill_otherwise, ("acme", "trunks are the open legs on one")),
        (_open_a_settled_one, ("sales", "one final settlement")),
    ],
)
async def test_a_wrong_call_is_found(
    store: StoreClient,
    breakage: Callable[[Books], Awaitable[None]],
    expected: tuple[str, str],
) -> None:
    books = Books(store)
    await _busy_tree(books)
    await breakage(books)
    assert expected in _invariants(await audit(store))


@pytest.mark.parametrize("marks", [Mark.DEGRADED, Mark.REOPENED])
async def test_what_was_granted_blindly_may_exceed_its_room(
    store: StoreClient, marks: Mark
) -> None:
    books = Books(store)
    await _busy_tree(books)
    await _overdraw(books)

    def mark(packed: bytes) -> bytes:
        fields = CALL_HEAD.unpack(packed)._asdict() | {"marks": marks}
        return CALL_HEAD.pack(**fields) + packed[CALL_HEAD.size :]

    await _replace_call(books, "running", mark)
    await assert_clean_audit(store)


async def test_the_kinds_of_entries_are_those_of_calls(store: StoreClient) -> None:
    books = Books(store)
    await _busy_tree(books)
    kinds = [entry.kind for entry in await books.ledger("sales")]
    assert kinds.count(Kind.CALL) == 7
    assert kinds.count(Kind.REFUND) == 1
