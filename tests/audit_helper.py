"""How every test that moves money ends."""

from __future__ import annotations

from authz.engine.audit import AuditReport, audit
from authz.store.client import StoreClient


async def assert_clean_audit(client: StoreClient) -> AuditReport:
    """Fail with every finding unless all invariants hold; nothing may move meanwhile."""
    report = await audit(client)
    assert list(report.findings) == []
    assert list(report.moving) == []
    return report
