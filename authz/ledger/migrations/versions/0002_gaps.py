"""What a repair has found to be lost: ranges of entries, and how many movements of each account."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the two tables of lost entries."""
    op.create_table(
        "gaps",
        sa.Column("bucket", sa.SmallInteger, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("first_sequence", sa.BigInteger, nullable=False),
        sa.Column("repaired_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("bucket", "last_sequence"),
    )
    op.create_table(
        "gap_movements",
        sa.Column("bucket", sa.SmallInteger, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("movements", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("bucket", "last_sequence", "account"),
    )
