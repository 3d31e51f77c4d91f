"""How every test that moves money ends."""

from __future__ import annotations

from authz.archived import LedgerArchive
from authz.engine.audit import AuditReport, audit
from authz.store.client import StoreClient


async def assert_clean_audit(
    client: StoreClient, archive: LedgerArchive | None = None
) -> AuditReport:
    """Fail with every finding unless all invariants hold; nothing may move meanwhile.

    A store that an archive has taken entries from is only clean together with it.
    """
    report = await audit(client, archive=archive)
    assert list(report.findings) == []
    assert list(report.moving) == []
    return report
