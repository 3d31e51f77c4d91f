"""How every test that moves money ends."""

from __future__ import annotations

import asyncio
from typing import Final

from authz.archived import LedgerArchive
from authz.engine.audit import AuditReport, audit
from authz.store import keys
from authz.store.client import StoreClient

#: Most of an audit is waiting for answers, bucket after bucket, and most tests end with one.
_BUCKETS_AT_ONCE: Final = 32


async def assert_clean_audit(
    client: StoreClient, archive: LedgerArchive | None = None
) -> AuditReport:
    """Fail with every finding unless all invariants hold; nothing may move meanwhile.

    A store that an archive has taken entries from is only clean together with it.
    """
    parts = await asyncio.gather(
        *(
            audit(client, range(first, keys.BUCKETS, _BUCKETS_AT_ONCE), archive=archive)
            for first in range(_BUCKETS_AT_ONCE)
        )
    )
    report = AuditReport(
        buckets=sum(part.buckets for part in parts),
        accounts=sum(part.accounts for part in parts),
        calls=sum(part.calls for part in parts),
        entries=sum(part.entries for part in parts),
        findings=tuple(one for part in parts for one in part.findings),
        moving=tuple(name for part in parts for name in part.moving),
        duration_ms=max(part.duration_ms for part in parts),
    )
    assert not report.findings, report.findings
    assert not report.moving, report.moving
    assert report.buckets == keys.BUCKETS
    return report
