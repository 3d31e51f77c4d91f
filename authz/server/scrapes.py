"""Puts the metrics of a daemon together: what its processes count, and what the office reads."""

from __future__ import annotations

from authz.engine.audit import AuditReport, audit
from authz.events.outbox import Outbox
from authz.ledger.archive import Archive
from authz.meters.shared import Row, own_row
from authz.metrics.delivery_part import DeliveriesPart
from authz.metrics.engine_parts import (
    ArchivePart,
    AuditPart,
    DecksPart,
    MoneyPart,
)
from authz.metrics.host_part import HostPart
from authz.metrics.page import MetricsPage
from authz.metrics.parts import Part
from authz.metrics.store_parts import CallsPart, StorePart
from authz.metrics.surveys import Surveys
from authz.server.child import Order
from authz.server.engine_host import SPOOL_DIRECTORY, EngineHost


def build_metrics(
    order: Order,
    host: EngineHost,
    archive: Archive | None = None,
    outbox: Outbox | None = None,
) -> MetricsPage:
    """Return the page of the daemon; its surveys run in the background until the host ends."""
    settings, client = host.settings, host.client

    def rows() -> list[Row]:
        return [own_row(order.name)] if order.meters is None else order.meters.rows()

    async def audit_bucket(bucket: int) -> AuditReport:
        # An archive that is away is no proof that money is: the next round asks it again.
        return await audit(client, [bucket], archive=archive, needs_archive=True)

    surveys = Surveys(client, settings.metrics, audit_bucket)
    host.run(surveys.take_censuses())
    host.run(surveys.audit_buckets())
    parts: list[Part] = [
        HostPart(rows, settings.state_dir, settings.state_dir / SPOOL_DIRECTORY),
        StorePart(client),
        CallsPart(client),
        DecksPart(host.decks.all),
        MoneyPart(surveys),
        AuditPart(surveys),
    ]
    if archive is not None:
        parts.append(ArchivePart(archive))
    if outbox is not None:
        parts.append(DeliveriesPart(outbox))
    return MetricsPage(rows, parts)
