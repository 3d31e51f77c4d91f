"""The operations about access: tokens, who asks, and what was changed by whom."""

from __future__ import annotations

from authz.admin.callers import current_caller
from authz.admin.routes import Reply
from authz.admin.services import Services
from authz.admin.tokens import CallerView, TokenList, TokenPath, TokenRequest
from authz.engine.clock import format_moment
from authz.ledger.changes import ChangePage, ChangeQuery


async def list_tokens(services: Services, _parameters: None, _: None) -> TokenList:
    """List all tokens."""
    return await services.tokens.all()


async def create_token(services: Services, _parameters: None, body: TokenRequest) -> Reply:
    """Make a token and tell it."""
    return Reply(201, await services.tokens.create(body))


async def revoke_token(services: Services, path: TokenPath, _: None) -> Reply:
    """End a token."""
    await services.tokens.revoke(path.id)
    return Reply(204)


async def list_changes(services: Services, query: ChangeQuery, _: None) -> ChangePage:
    """Page through the log of changes."""
    return await services.change_history.page(query)


async def who_am_i(_services: Services, _parameters: None, _: None) -> CallerView:
    """Say as whom the daemon has recognised the caller."""
    caller = current_caller.get()
    return CallerView(
        name=caller.name,
        role=caller.role.label,
        account=caller.account,
        token=caller.token_id,
        expires_at=None if caller.expires_at is None else format_moment(caller.expires_at),
    )
