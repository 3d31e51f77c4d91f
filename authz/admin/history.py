"""The operations on an account's history: transactions, usage, statements."""

from __future__ import annotations

from authz.admin.roles import Role, Within
from authz.admin.routes import CsvFile, Route
from authz.admin.services import Services
from authz.ledger.messages import (
    MovementQuery,
    Statement,
    StatementQuery,
    TransactionPage,
    TransactionQuery,
    UsageAnswer,
)


async def list_transactions(
    services: Services, query: TransactionQuery, _: None
) -> TransactionPage:
    """Page through an account's transactions."""
    return await services.history.transactions(query)


async def export_transactions(services: Services, query: TransactionQuery, _: None) -> CsvFile:
    """Send all of an account's transactions as CSV."""
    file = await services.history.transactions_csv(query)
    return CsvFile(file.name, file.chunks)


async def get_usage(services: Services, query: MovementQuery, _: None) -> UsageAnswer:
    """Sum up what an account used."""
    return await services.history.usage(query)


async def get_statement(services: Services, query: StatementQuery, _: None) -> Statement:
    """Read an account's statement of a month."""
    return await services.history.statement(query)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/accounts/{id}/transactions",
          "List what moved an account's balance; with Accept: text/csv, all of it as a file.",
          list_transactions, TransactionQuery, None, {200: TransactionPage},
          Role.READ, Within("id", also=("origin", "under")), file_handler=export_transactions),
    Route("GET", "/v1/accounts/{id}/usage",
          "Sum up what an account used, by kind, class, billing and origin.", get_usage,
          MovementQuery, None, {200: UsageAnswer},
          Role.READ, Within("id", also=("origin", "under"))),
    Route("GET", "/v1/accounts/{id}/statement",
          "Read an account's statement of a month: rollover, totals by kind, closing balance.",
          get_statement, StatementQuery, None, {200: Statement}, Role.READ, Within("id")),
)  # fmt: skip
