"""What the office looks at again and again on its own: a census of the accounts, the audit.

Both are spread over time, so that the store hardly notices: the census reads some hundred accounts
a second and is only taken while somebody asks for metrics; the audit takes one bucket after
another, all of them within `metrics.audit_hours`. A finding is also logged, for whoever has no
Prometheus.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from authz import log
from authz.config.metrics import MetricsSettings
from authz.engine.audit import AuditReport
from authz.engine.census import Census, take_census
from authz.errors import AuthzError, StoreError
from authz.store import keys
from authz.store.client import StoreClient

#: Who has not asked for so long is not interested any more.
_INTEREST_SECONDS: Final = 600
_SECONDS_PER_HOUR: Final = 3_600
#: Of one bucket; the log is not for lists.
_FINDINGS_LOGGED_MAX: Final = 5

#: Audits one bucket, by its index.
AuditBucket = Callable[[int], Awaitable[AuditReport]]


class Surveys:
    """The last results, and the work that brings new ones."""

    def __init__(
        self, client: StoreClient, settings: MetricsSettings, audit_bucket: AuditBucket
    ) -> None:
        """`audit_bucket` raises AuthzError if the store or the archive does not answer."""
        self._client = client
        self._settings = settings
        self._audit_bucket = audit_bucket
        self._interest_until = 0.0
        self._interest = asyncio.Event()
        self._reports: dict[int, AuditReport] = {}
        self._audited_at: dict[int, int] = {}
        self.census: Census | None = None
        #: When the last census ended (Unix seconds).
        self.census_at = 0

    @property
    def findings(self) -> int:
        """Findings of the last audit of every bucket."""
        return sum(len(report.findings) for report in self._reports.values())

    @property
    def moving(self) -> int:
        """Accounts that moved during every look of it."""
        return sum(len(report.moving) for report in self._reports.values())

    @property
    def audited_since(self) -> int:
        """When the bucket audited longest ago was (Unix seconds); 0 while one never was."""
        if len(self._audited_at) < keys.BUCKETS:
            return 0
        return min(self._audited_at.values())

    def note_interest(self) -> None:
        """Somebody asks for figures: go on taking the census for a while."""
        self._interest_until = time.monotonic() + _INTEREST_SECONDS
        self._interest.set()

    async def take_censuses(self) -> None:
        """Take one census after another, for as long as somebody asks; until cancelled."""
        while self._settings.census_seconds:
            await self._interest.wait()
            if time.monotonic() > self._interest_until:
                self._interest.clear()
                continue
            try:
                self.census = await take_census(self._client)
                self.census_at = int(time.time())
            except StoreError as error:
                log.event("census_failed", level="debug", error=error)
            except Exception as error:
                # The next one may find the accounts as they should be.
                log.event("census_failed", level="error", error=error)
            await asyncio.sleep(self._settings.census_seconds)

    async def audit_buckets(self) -> None:
        """Audit one bucket after another, evenly over the time set; until cancelled."""
        # An office that is often started anew must not always look at the same ones.
        bucket = random.randrange(keys.BUCKETS)
        while self._settings.audit_hours:
            await self._audit(bucket)
            await asyncio.sleep(self._settings.audit_hours * _SECONDS_PER_HOUR / keys.BUCKETS)
            bucket = (bucket + 1) % keys.BUCKETS

    async def _audit(self, bucket: int) -> None:
        try:
            report = await self._audit_bucket(bucket)
        except Exception as error:
            # The next round will come to it again.
            level: log.LevelName = "warning" if isinstance(error, AuthzError) else "error"
            log.event("audit_failed", level=level, bucket=bucket, error=error)
            return
        self._reports[bucket] = report
        self._audited_at[bucket] = int(time.time())
        for finding in report.findings[:_FINDINGS_LOGGED_MAX]:
            log.event(
                "audit_finding",
                level="error",
                bucket=finding.bucket,
                account=finding.account,
                invariant=finding.invariant,
                expected=finding.expected,
                found=finding.found,
            )
