"""A ledger of made-up movements, written straight into an archive: any month, any number of them.

It books as the scripts do: every leg's balance and sequence go on, times never go back.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import insert, text

from authz.ledger.database import Database
from authz.ledger.schema import movements
from authz.reasons import Billing, CallClass, Direction
from authz.store.constants import Kind, Mark

_INSERT_ROWS = 500
#: Books calls of one account by the million: `sequence` of the first and `count` say which.
_FILL = """
WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < :count)
INSERT INTO movements SELECT
  :bucket, :sequence + i, 0, :account, :account, 1, 0, 4, 0, 3, 60,
  1767225600000000 + (:sequence + i) * 1000, 1767225600, -1, -i - 1, i + 1, 'call-' || i,
  '+14155550100', 'NORMAL_CLEARING', ''
FROM numbers
"""


class Movement(NamedTuple):
    """One row, in the words of the columns."""

    bucket: int
    sequence: int
    leg: int
    account: str
    origin: str
    kind: int
    marks: int
    call_class: int
    direction: int
    billing: int
    seconds: int
    booked_us: int
    started_at: int
    amount_micros: int
    balance_micros: int
    account_sequence: int
    reference: str
    number: str
    description: str
    refunded_call: str


class Ledger:
    """Books movements of accounts of one bucket; `rows` has them all, oldest first."""

    def __init__(self, bucket: int = 3) -> None:
        self.bucket = bucket
        self.rows: list[Movement] = []
        self.balances: Counter[str] = Counter()
        self._sequences: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._stored = 0

    def book(
        self,
        amounts: dict[str, int],
        booked_us: int,
        kind: Kind = Kind.PAYMENT,
        *,
        marks: Mark = Mark.NONE,
        call_class: CallClass = CallClass.EMERGENCY,
        direction: Direction = Direction.OUTBOUND,
        billing: Billing = Billing.FREE,
        seconds: int = 0,
        reference: str | None = None,
        number: str = "",
        description: str = "",
        refunded_call: str = "",
    ) -> list[Movement]:
        """Move the balances of a chain, leaf first, by these micros; return the rows."""
        if self.rows and booked_us < self.rows[-1].booked_us:
            raise ValueError("a ledger's time does not go back")
        sequence = next(self._numbers)
        rows = []
        for leg, (account, amount) in enumerate(amounts.items()):
            self.balances[account] += amount
            self._sequences[account] += 1
            rows.append(
                Movement(
                    self.bucket, sequence, leg, account, next(iter(amounts)), int(kind), int(marks),
                    int(call_class), int(direction), int(billing), seconds, booked_us,
                    booked_us // 1_000_000 - seconds, amount, self.balances[account],
                    self._sequences[account], reference or f"reference-{sequence}", number,
                    description, refunded_call,
                )
            )  # fmt: skip
        self.rows += rows
        return rows

    def call(
        self,
        amounts: dict[str, int],
        booked_us: int,
        *,
        call_class: CallClass = CallClass.NATIONAL,
        billing: Billing = Billing.PER_MINUTE,
        number: str = "+14155550100",
        **fields: Any,
    ) -> list[Movement]:
        """Book a call of a chain."""
        return self.book(
            amounts, booked_us, Kind.CALL, call_class=call_class, billing=billing, number=number,
            **fields,
        )  # fmt: skip

    async def store(self, database: Database) -> None:
        """Write what was booked since the last time into an archive."""
        new, self._stored = self.rows[self._stored :], len(self.rows)
        async with database.write() as connection:
            for start in range(0, len(new), _INSERT_ROWS):
                page = new[start : start + _INSERT_ROWS]
                values = [{"class": one.call_class, **one._asdict()} for one in page]
                for one in values:
                    del one["call_class"]
                await connection.execute(insert(movements), values)

    def of(self, account: str, *conditions: Callable[[Movement], bool]) -> Sequence[Movement]:
        """Return an account's movements that fulfil every condition, oldest first."""
        return [
            row
            for row in self.rows
            if row.account == account and all(condition(row) for condition in conditions)
        ]


async def fill(database: Database, account: str, count: int, *, bucket: int = 70) -> None:
    """Write so many calls of one account into an archive in SQLite, faster than it could book."""
    async with database.write() as connection:
        values = {"account": account, "count": count, "bucket": bucket, "sequence": 1}
        await connection.execute(text(_FILL), values)
