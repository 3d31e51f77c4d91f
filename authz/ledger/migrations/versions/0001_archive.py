"""The archive's first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table of the first version."""
    op.create_table(
        "movements",
        *_movement_columns(),
        sa.PrimaryKeyConstraint("bucket", "sequence", "leg"),
        sqlite_with_rowid=False,
    )
    op.create_index("movements_by_time", "movements", ["account", "booked_us", "sequence"])
    op.create_index("movements_by_reference", "movements", ["account", "reference"])
    is_refund = sa.text("refunded_call <> ''")
    op.create_index(
        "movements_by_refunded_call",
        "movements",
        ["account", "refunded_call"],
        sqlite_where=is_refund,
        postgresql_where=is_refund,
    )
    is_no_call = sa.text("kind <> 1")
    op.create_index(
        "movements_but_calls",
        "movements",
        ["account", "booked_us", "sequence"],
        sqlite_where=is_no_call,
        postgresql_where=is_no_call,
    )
    op.create_table(
        "disowned",
        _number("disowned_at"),
        _text("verdict"),
        *_movement_columns(),
        sa.PrimaryKeyConstraint("disowned_at", "bucket", "sequence", "leg"),
    )
    op.create_table(
        "cursors",
        _text("stream"),
        _code("bucket"),
        _text("entry_id"),
        _number("sequence"),
        sa.PrimaryKeyConstraint("stream", "bucket"),
    )
    op.create_table(
        "archive",
        _text("id"),
        _text("store_identity"),
        _number("created_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    _create_events()
    op.create_table(
        "changes",
        _text("id"),
        _number("at"),
        *(_text(name) for name in ("who", "remote", "action", "target")),
        _code("status"),
        _text("detail"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("changes_by_time", "changes", ["at", "id"])
    op.create_index("changes_by_target", "changes", ["target", "at"])


def _create_events() -> None:
    op.create_table(
        "events",
        _text("id"),
        _code("bucket"),
        *(_text(name) for name in ("entry_id", "event", "account")),
        _number("at"),
        _text("data"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("events_by_time", "events", ["at", "id"])
    for name, column in (("account", "account"), ("bucket", "bucket"), ("name", "event")):
        op.create_index(f"events_by_{name}", "events", [column, "at", "id"])
    op.create_table(
        "deliveries",
        *(_text(name) for name in ("id", "event_id", "channel", "target", "state")),
        sa.Column("attempts", sa.Integer, nullable=False),
        _number("next_attempt_at"),
        _text("last_error"),
        _number("created_at"),
        sa.Column("delivered_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id"),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"]),
    )
    op.create_index(
        "deliveries_due", "deliveries", ["state", "channel", "target", "next_attempt_at"]
    )
    op.create_index("deliveries_by_time", "deliveries", ["created_at", "id"])
    op.create_index("deliveries_by_event", "deliveries", ["event_id"])


def _movement_columns() -> list[sa.Column[int] | sa.Column[str]]:
    codes = ("kind", "marks", "class", "direction", "billing")
    return [
        _code("bucket"),
        _number("sequence"),
        sa.Column("leg", sa.Integer, nullable=False),
        *(_text(name) for name in ("account", "origin")),
        *(_code(name) for name in codes),
        *(_number(name) for name in ("seconds", "booked_us", "started_at")),
        *(_number(name) for name in ("amount_micros", "balance_micros", "account_sequence")),
        *(_text(name) for name in ("reference", "number", "description", "refunded_call")),
    ]


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _code(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger, nullable=False)
