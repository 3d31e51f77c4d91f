"""The archive's tables, alike in SQLite and PostgreSQL.

Money is a count of micros, times are microseconds (`…_us`) or seconds (`…_at`) since 1970-01-01,
as the ledger has them. Small codes are those of `authz.reasons` and `authz.store.constants`.
A change here needs a migration; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

metadata = MetaData()

#: One row for each leg of each ledger entry. `origin` is the leaf's account,
#: `refunded_call` the call that a refund gives back, or empty; `sequence` numbers
#: a bucket's entries and `account_sequence` an account's movements, both without gaps from 1.
movements = Table(
    "movements",
    metadata,
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("leg", Integer, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("marks", SmallInteger, nullable=False),
    Column("class", SmallInteger, nullable=False),
    Column("direction", SmallInteger, nullable=False),
    Column("billing", SmallInteger, nullable=False),
    Column("seconds", BigInteger, nullable=False),
    Column("booked_us", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("amount_micros", BigInteger, nullable=False),
    Column("balance_micros", BigInteger, nullable=False),
    Column("account_sequence", BigInteger, nullable=False),
    Column("reference", Text, nullable=False),
    Column("number", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("refunded_call", Text, nullable=False),
    Index("movements_by_time", "account", "booked_us", "sequence"),
    Index("movements_by_reference", "account", "reference"),
    # Of refunds alone, which are few.
    Index(
        "movements_by_refunded_call",
        "account",
        "refunded_call",
        sqlite_where=text("refunded_call <> ''"),
        postgresql_where=text("refunded_call <> ''"),
    ),
    # Of all but calls: payments and charges of a year, among millions of calls.
    Index(
        "movements_but_calls",
        "account",
        "booked_us",
        "sequence",
        sqlite_where=text("kind <> 1"),
        postgresql_where=text("kind <> 1"),
    ),
    # The key is the table: one tree less to write for every movement.
    sqlite_with_rowid=False,
)

#: Movements that a repair has taken out of the ledger, as they were, with the time of the repair
#: and what was done about them.
disowned = Table(
    "disowned",
    metadata,
    Column("disowned_at", BigInteger, primary_key=True, autoincrement=False),
    Column("verdict", Text, nullable=False),
    *(column._copy() for column in movements.columns),
)

#: Entries that neither store nor archive has any more, as a repair found them. What they moved is
#: in `movements`: one adjustment per account, at `last_sequence`.
gaps = Table(
    "gaps",
    metadata,
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("last_sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("repaired_at", BigInteger, nullable=False),
)

#: For how many lost movements of an account the adjustment in a gap stands.
gap_movements = Table(
    "gap_movements",
    metadata,
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("last_sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("account", Text, primary_key=True),
    Column("movements", BigInteger, nullable=False),
)

#: How far each stream of the store is archived: `entry_id` is that of the last entry stored,
#: "0-0" before the first; `sequence` that entry's own (of a ledger) or the count of entries.
cursors = Table(
    "cursors",
    metadata,
    Column("stream", Text, primary_key=True),
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("entry_id", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
)

#: One row: whose archive this is. The store names the same `id` at `authz:archive`.
archive = Table(
    "archive",
    metadata,
    Column("id", Text, primary_key=True),
    Column("store_identity", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

#: Alerts and recharge requests. `id` is `evt_<bucket>_<entry id, with _ for ->`; `data` is JSON.
events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("bucket", SmallInteger, nullable=False),
    Column("entry_id", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("data", Text, nullable=False),
    Index("events_by_time", "at", "id"),
    Index("events_by_account", "account", "at", "id"),
    Index("events_by_bucket", "bucket", "at", "id"),
    Index("events_by_name", "event", "at", "id"),
)

#: The outbox: what is still to be told to whom, inserted together with its event.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("event_id", Text, ForeignKey("events.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", BigInteger, nullable=False),
    Column("last_error", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("delivered_at", BigInteger),
    Index("deliveries_due", "state", "channel", "target", "next_attempt_at"),
    Index("deliveries_by_time", "created_at", "id"),
    Index("deliveries_by_event", "event_id"),
)

#: Every change made by an operator. `id` is `chg_<entry id, with _ for ->`; `status` is that of
#: HTTP, `detail` is JSON.
changes = Table(
    "changes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("remote", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Index("changes_by_time", "at", "id"),
    Index("changes_by_target", "target", "at"),
)
