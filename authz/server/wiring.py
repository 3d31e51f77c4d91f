"""How the parts make a worker, an office and the agents: the one place that knows all of them."""

from __future__ import annotations

from authz.admin.app import create_app
from authz.admin.services import Services
from authz.config import Settings
from authz.events.desk import EventDesk
from authz.hooks.kazoo.notifications import kazoo_outlets
from authz.ledger.archive import Archive
from authz.ledger.changes import ChangeHistory
from authz.ledger.history import History
from authz.rating.registry import DeckRegistry
from authz.server.agents import AgentsService
from authz.server.child import Order
from authz.server.courtesy import give_way
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
    context = host.engine.context
    outlets = kazoo_outlets(order.settings.kazoo)
    desk = EventDesk(context, lambda: archive.database, outlets)
    archive = Archive(host.client, order.settings, desk.on_events)
    history = History(host.client, context.directory, archive)
    metrics = build_metrics(order, host, archive, desk.outbox)
    changes = ChangeHistory(archive)
    services = Services(context, history, desk.service, archive=archive, change_history=changes)
    return OfficeService(host, create_app(services, host.readiness, metrics), archive, desk)


async def build_agents(order: Order) -> AgentsService:
    """Make the agents process: the engine, and the switches that it supervises by it."""
    host = await EngineHost.open(order.name, order.settings, order.store_url, open_decks)
    service = AgentsService(host)
    publish_gauges(host, order.meters, service.publish)
    return service


def open_decks(client: StoreClient, settings: Settings) -> DeckRegistry:
    """Return the decks that follow the store, kept in the state directory of this host.

    A large deck is read and hashed behind the calls that this process decides meanwhile.
    """
    return DeckRegistry(client, settings.state_dir / "decks", begin_thread=give_way)
