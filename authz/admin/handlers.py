"""The operations of the admin API: thin callers of the services."""

from __future__ import annotations

from typing import Any

import msgspec

from authz.admin import calls, events, hangups, history, prices
from authz.admin.access_handlers import (
    create_token,
    list_changes,
    list_tokens,
    revoke_token,
    who_am_i,
)
from authz.admin.decks import DeckImport, DeckList
from authz.admin.messages import (
    AccountBody,
    AccountList,
    AccountListQuery,
    AccountPath,
    AccountView,
    CallList,
    CallListQuery,
    CallQuery,
    DeckImportQuery,
    DeckPath,
    LookupAnswer,
    LookupQuery,
    PriceAnswer,
    PriceQuery,
    SwitchPath,
)
from authz.admin.problems import refused_posting
from authz.admin.roles import Reach, Role, Within
from authz.admin.routes import Body, CsvFile, Reply, Route
from authz.admin.services import Services
from authz.admin.tokens import CallerView, NewToken, TokenList, TokenPath, TokenRequest
from authz.engine.balances import BalanceView, read_balance
from authz.engine.inspect import call_state
from authz.engine.orphans import orphan_switch
from authz.engine.postings import CreditRequest, DebitRequest, Posted, PostingRefused
from authz.errors import CallUnknown, InvalidInput
from authz.ledger.changes import ChangePage, ChangeQuery
from authz.model import AccountConfig, CallState, SwitchRestarted
from authz.store.accounts import AccountRecord


def account_view(record: AccountRecord) -> AccountView:
    """Return a stored account as the API shows it."""
    return AccountView(id=record.id, **msgspec.structs.asdict(record.config))


async def list_accounts(services: Services, query: AccountListQuery, _: None) -> AccountList:
    """Page through accounts."""
    page = await services.accounts.page(
        parent=query.parent,
        under=query.under,
        q=query.q,
        cursor=query.cursor,
        limit=query.limit,
    )
    return AccountList(tuple(map(account_view, page.records)), page.cursor)


async def get_account(services: Services, path: AccountPath, _: None) -> AccountView:
    """Read one account's configuration."""
    return account_view(await services.accounts.read(path.id))


async def put_account(services: Services, path: AccountPath, body: AccountBody) -> Reply:
    """Create an account or replace its configuration."""
    if body.id not in (None, path.id):
        raise InvalidInput("id", f"is {body.id}, but the path says {path.id}")
    fields = msgspec.structs.asdict(body)
    del fields["id"]
    stored = await services.accounts.put(path.id, AccountConfig(**fields))
    return Reply(201 if stored.created else 200, account_view(stored.record))


async def patch_account(
    services: Services, path: AccountPath, changes: dict[str, Any]
) -> AccountView:
    """Change some fields of an account."""
    stored = await services.accounts.patch(path.id, changes)
    return account_view(stored.record)


async def delete_account(services: Services, path: AccountPath, _: None) -> Reply:
    """Close an account for ever."""
    await services.accounts.close(path.id)
    return Reply(204)


async def get_balance(services: Services, path: AccountPath, _: None) -> BalanceView:
    """Read an account's balance and those of its ancestors."""
    context = services.context
    return await read_balance(context.client, context.directory, path.id)


async def post_credit(services: Services, path: AccountPath, body: CreditRequest) -> Posted:
    """Book a credit or a refund."""
    return _posted(await services.postings.credit(path.id, body))


async def post_debit(services: Services, path: AccountPath, body: DebitRequest) -> Posted:
    """Book a debit."""
    return _posted(await services.postings.debit(path.id, body))


def _posted(answer: Posted | PostingRefused) -> Posted:
    if isinstance(answer, PostingRefused):
        raise refused_posting(answer)
    return answer


async def list_decks(services: Services, _parameters: None, _: None) -> DeckList:
    """List the decks in force."""
    return await services.decks.all()


async def import_deck(services: Services, query: DeckImportQuery, data: bytes) -> DeckImport:
    """Import, or only check, a deck file."""
    return await services.decks.import_file(query, data)


async def export_deck(services: Services, path: DeckPath, _: None) -> CsvFile:
    """Send a deck's canonical CSV."""
    return CsvFile(f"{path.id}.csv", await services.decks.export(path.id))


async def look_up(services: Services, query: LookupQuery, _: None) -> LookupAnswer:
    """Find a deck's row for a number."""
    return prices.look_up(services.context, query)


async def get_price(services: Services, query: PriceQuery, _: None) -> PriceAnswer:
    """Price a call."""
    return await prices.price(services.context, query)


async def list_calls(services: Services, query: CallListQuery, _: None) -> CallList:
    """Page through open calls."""
    return await calls.open_calls(services.context, query.account, query.cursor, query.limit)


async def get_call(services: Services, query: CallQuery, _: None) -> CallState:
    """Read one call's state."""
    state = await call_state(services.context, query.account, query.call_id)
    if state is None:
        raise CallUnknown
    return state


async def post_switch_restarted(services: Services, path: SwitchPath, _: None) -> SwitchRestarted:
    """Make orphans of a switch's older calls."""
    return await orphan_switch(services.context, path.name)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/accounts", "List accounts, by id.", list_accounts,
          AccountListQuery, None, {200: AccountList},
          Role.READ, Within("under", is_filled=True, also=("parent",))),
    Route("GET", "/v1/accounts/{id}", "Read an account's configuration.", get_account,
          AccountPath, None, {200: AccountView}, Role.READ, Within("id")),
    Route("PUT", "/v1/accounts/{id}",
          "Create an account, or replace its configuration; never its balance.", put_account,
          AccountPath, AccountBody, {200: AccountView, 201: AccountView},
          Role.OPERATE, Within("id", may_create=True)),
    Route("PATCH", "/v1/accounts/{id}", "Change some fields; null takes the default.",
          patch_account, AccountPath, Body.MERGE_PATCH, {200: AccountView},
          Role.OPERATE, Within("id")),
    Route("DELETE", "/v1/accounts/{id}",
          "Close an account without calls, children and balance, for ever.", delete_account,
          AccountPath, None, {204: None}, Role.ADMIN, Within("id")),
    Route("GET", "/v1/accounts/{id}/balance",
          "Read what an account and its ancestors have, hold and spend.", get_balance,
          AccountPath, None, {200: BalanceView}, Role.READ, Within("id")),
    Route("POST", "/v1/accounts/{id}/credits", "Book a credit, or the refund of a call.",
          post_credit, AccountPath, CreditRequest, {200: Posted}, Role.OPERATE, Within("id"),
          problems=(402,)),
    Route("POST", "/v1/accounts/{id}/debits", "Book a debit on an account and its ancestors.",
          post_debit, AccountPath, DebitRequest, {200: Posted}, Role.OPERATE, Within("id"),
          problems=(402,)),
    Route("GET", "/v1/decks", "List the decks in force.", list_decks,
          None, None, {200: DeckList}, Role.READ, Reach.WHOLE),
    Route("PUT", "/v1/decks/{id}", "Import a deck file, or with dry_run only compare it.",
          import_deck, DeckImportQuery, Body.CSV, {200: DeckImport}, Role.ADMIN, Reach.WHOLE),
    Route("GET", "/v1/decks/{id}", "Export a deck as canonical CSV.", export_deck,
          DeckPath, None, {200: CsvFile}, Role.READ, Reach.WHOLE),
    Route("GET", "/v1/decks/{id}/lookup", "Find the row in force for a number.", look_up,
          LookupQuery, None, {200: LookupAnswer}, Role.READ, Reach.WHOLE),
    Route("GET", "/v1/price", "Price a call exactly, or say what an amount buys.", get_price,
          PriceQuery, None, {200: PriceAnswer},
          Role.READ, Within("account", is_filled=True, refused=("deck",))),
    Route("GET", "/v1/calls", "List open calls.", list_calls,
          CallListQuery, None, {200: CallList}, Role.READ, Within("account", is_filled=True)),
    Route("GET", "/v1/calls/{call_id}", "Read one call, open or settled.", get_call,
          CallQuery, None, {200: CallState}, Role.READ, Within("account")),
    Route("POST", "/v1/switches/{name}/restarted",
          "Make orphans of all calls that a switch had open.", post_switch_restarted,
          SwitchPath, None, {200: SwitchRestarted}, Role.OPERATE, Reach.WHOLE),
    Route("GET", "/v1/whoami", "Say who the caller is and what the token may do.", who_am_i,
          None, None, {200: CallerView}, Role.READ, Reach.ANY),
    Route("GET", "/v1/tokens", "List all tokens, without their secrets.", list_tokens,
          None, None, {200: TokenList}, Role.ADMIN, Reach.WHOLE),
    Route("POST", "/v1/tokens", "Make a token; it is told only in this answer.", create_token,
          None, TokenRequest, {201: NewToken}, Role.ADMIN, Reach.WHOLE),
    Route("DELETE", "/v1/tokens/{id}", "Revoke a token; it is refused from then on.",
          revoke_token, TokenPath, None, {204: None}, Role.ADMIN, Reach.WHOLE),
    Route("GET", "/v1/changes", "List what was changed by whom, the newest first.", list_changes,
          ChangeQuery, None, {200: ChangePage}, Role.ADMIN, Reach.WHOLE),
    *hangups.ROUTES,
    *history.ROUTES,
    *events.ROUTES,
)  # fmt: skip
