"""The operations on events: what happened, who is told of it, and recharges that are asked for."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from authz.admin.messages import Cursor, PageLength
from authz.admin.problems import refused_posting
from authz.admin.roles import Owner, Reach, Role, Within
from authz.admin.routes import Reply, Route
from authz.admin.services import Services
from authz.engine.postings import Posted, PostingRefused
from authz.engine.recharges import (
    RechargeAnswer,
    RechargeFailed,
    RechargeList,
    RechargeSucceeded,
    StateName,
)
from authz.events.endpoints import (
    WebhookBody,
    WebhookId,
    WebhookList,
    WebhookListBody,
    WebhookView,
)
from authz.events.messages import (
    DeliveryPage,
    DeliveryQuery,
    DeliveryView,
    EventPage,
    EventQuery,
    Retried,
    WebhookTest,
)
from authz.events.webhooks import send_test
from authz.model import AccountId


class WebhookPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Which receiver of webhooks."""

    id: WebhookId


class DeliveryPath(Struct, frozen=True, forbid_unknown_fields=True):
    """Which delivery."""

    id: Annotated[str, Meta(pattern=r"^[!-~]{1,128}$(?!\n)")]


class RechargePath(Struct, frozen=True, forbid_unknown_fields=True):
    """Which recharge: `recharge` of its `recharge.due`, such as `acme-3`."""

    id: Annotated[str, Meta(pattern=r"^[!-~]{1,128}$(?!\n)")]


class RechargeQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which recharges that are not credited: of an account, of a tree, in a state."""

    account: AccountId | None = None
    under: AccountId | None = None
    state: Annotated[StateName, Meta(description="Only those in this state.")] | None = None
    cursor: Cursor | None = None
    limit: PageLength = 100


async def list_events(services: Services, query: EventQuery, _: None) -> EventPage:
    """Page through events."""
    return await services.events.events(query, await services.accounts.tree(query.under))


async def list_deliveries(services: Services, query: DeliveryQuery, _: None) -> DeliveryPage:
    """Page through deliveries."""
    return await services.events.deliveries(query)


async def retry_delivery(services: Services, path: DeliveryPath, _: None) -> DeliveryView:
    """Send a dead letter again."""
    return await services.events.retry(path.id)


async def list_webhooks(services: Services, _parameters: None, _: None) -> WebhookList:
    """List the receivers."""
    return await services.webhooks.all()


async def put_webhooks(services: Services, _: None, body: WebhookListBody) -> WebhookList:
    """Replace all receivers."""
    return await services.webhooks.replace_all(body)


async def get_webhook(services: Services, path: WebhookPath, _: None) -> WebhookView:
    """Read a receiver."""
    return await services.webhooks.get(path.id)


async def put_webhook(services: Services, path: WebhookPath, body: WebhookBody) -> Reply:
    """Create or replace a receiver."""
    stored = await services.webhooks.put(path.id, body)
    return Reply(201 if stored.created else 200, stored.view)


async def delete_webhook(services: Services, path: WebhookPath, _: None) -> Reply:
    """Forget a receiver."""
    await services.webhooks.remove(path.id)
    return Reply(204)


async def rotate_webhook(services: Services, path: WebhookPath, _: None) -> WebhookView:
    """Give a receiver a new secret."""
    return await services.webhooks.rotate(path.id)


async def try_webhook(services: Services, path: WebhookPath, _: None) -> WebhookTest:
    """Send a test message."""
    endpoint = await services.webhooks.find(path.id)
    return await send_test(services.context.settings.webhooks, endpoint)


async def retry_webhook(services: Services, path: WebhookPath, _: None) -> Retried:
    """Send all dead letters of a receiver again."""
    return await services.events.retry_webhook(path.id)


async def list_recharges(services: Services, query: RechargeQuery, _: None) -> RechargeList:
    """Page through recharges that wait for money."""
    tree = await services.accounts.tree(query.under)
    return await services.recharges.page(
        query.account, query.state, query.cursor, query.limit, tree
    )


async def recharge_succeeded(
    services: Services, path: RechargePath, body: RechargeSucceeded
) -> Posted:
    """Credit a recharge."""
    answer = await services.recharges.succeeded(path.id, body)
    if isinstance(answer, PostingRefused):
        raise refused_posting(answer)
    return answer


async def recharge_failed(
    services: Services, path: RechargePath, body: RechargeFailed
) -> RechargeAnswer:
    """Note that a recharge failed."""
    return await services.recharges.failed(path.id, body)


async def _account_of(services: Services, path: RechargePath) -> str | None:
    return services.recharges.account_of(path.id)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/events", "List alerts and recharge requests, the newest first.",
          list_events, EventQuery, None, {200: EventPage},
          Role.READ, Within("under", is_filled=True, also=("account",))),
    Route("GET", "/v1/deliveries", "List what became of telling events, the newest first.",
          list_deliveries, DeliveryQuery, None, {200: DeliveryPage}, Role.READ, Reach.WHOLE),
    Route("POST", "/v1/deliveries/{id}/retry", "Send a dead letter again, or a waiting one now.",
          retry_delivery, DeliveryPath, None, {200: DeliveryView}, Role.OPERATE, Reach.WHOLE),
    Route("GET", "/v1/webhooks", "List the receivers of events, without their secrets.",
          list_webhooks, None, None, {200: WebhookList}, Role.ADMIN, Reach.WHOLE),
    Route("PUT", "/v1/webhooks",
          "Replace all receivers; new secrets are told only in this answer.", put_webhooks,
          None, WebhookListBody, {200: WebhookList}, Role.ADMIN, Reach.WHOLE),
    Route("GET", "/v1/webhooks/{id}", "Read a receiver, without its secret.", get_webhook,
          WebhookPath, None, {200: WebhookView}, Role.ADMIN, Reach.WHOLE),
    Route("PUT", "/v1/webhooks/{id}",
          "Create or replace a receiver; a new secret is told only in this answer.", put_webhook,
          WebhookPath, WebhookBody, {200: WebhookView, 201: WebhookView},
          Role.ADMIN, Reach.WHOLE),
    Route("DELETE", "/v1/webhooks/{id}", "Forget a receiver; what waits for it is not sent.",
          delete_webhook, WebhookPath, None, {204: None}, Role.ADMIN, Reach.WHOLE),
    Route("POST", "/v1/webhooks/{id}/rotate",
          "Make a new secret; for a while the one before signs as well.", rotate_webhook,
          WebhookPath, None, {200: WebhookView}, Role.ADMIN, Reach.WHOLE),
    Route("POST", "/v1/webhooks/{id}/test", "Send a signed test message now and say what came.",
          try_webhook, WebhookPath, None, {200: WebhookTest}, Role.ADMIN, Reach.WHOLE),
    Route("POST", "/v1/webhooks/{id}/retry", "Send all dead letters of a receiver again.",
          retry_webhook, WebhookPath, None, {200: Retried}, Role.OPERATE, Reach.WHOLE),
    Route("GET", "/v1/recharges", "List requested recharges that are not credited.",
          list_recharges, RechargeQuery, None, {200: RechargeList},
          Role.READ, Within("under", is_filled=True, also=("account",))),
    Route("POST", "/v1/recharges/{id}/succeeded",
          "Credit a requested recharge, once, however late and often it is said.",
          recharge_succeeded, RechargePath, RechargeSucceeded, {200: Posted},
          Role.OPERATE, Owner(_account_of)),
    Route("POST", "/v1/recharges/{id}/failed",
          "Note that a recharge failed; it is asked for again after a while.", recharge_failed,
          RechargePath, RechargeFailed, {200: RechargeAnswer}, Role.OPERATE, Owner(_account_of)),
)  # fmt: skip
