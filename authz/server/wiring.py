"""How the parts make a worker and an office: the one place that knows all of them."""

from __future__ import annotations

from authz.admin.app import create_app
from authz.admin.services import Services
from authz.config import Settings
from authz.rating.registry import DeckRegistry
from authz.server.child import Order
from authz.server.engine_host import EngineHost
from authz.server.gauges import publish_gauges
from authz.server.office import OfficeService
from authz.server.scrapes import build_metrics
from authz.server.worker import EngineBackend, HookService
from authz.store.client import StoreClient


async def build_worker(order: Order) -> HookService:
    """Make a hook worker: the engine and the hook API on it."""
    host = await EngineHost.open(order.name, order.settings, order.store_url, open_decks)
    backend = EngineBackend(host)
    publish_gauges(host, order.meters, backend.publish)
    return HookService(backend, order)


async def build_office(order: Order) -> OfficeService:
    """Make the office: the engine, the admin API on it, and the housekeeping."""
    host = await EngineHost.open(order.name, order.settings, order.store_url, open_decks)
    publish_gauges(host, order.meters)
    metrics = build_metrics(order, host)
    return OfficeService(host, create_app(Services(host.engine.context), host.readiness, metrics))


def open_decks(client: StoreClient, settings: Settings) -> DeckRegistry:
    """Return the decks that follow the store, kept in the state directory of this host."""
    return DeckRegistry(client, settings.state_dir / "decks")
