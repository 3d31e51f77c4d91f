"""The section of the settings for metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from authz.config.fields import about


class MetricsSettings(Struct, frozen=True, kw_only=True):
    """What /metrics on the admin listener tells Prometheus."""

    access: Annotated[
        Literal["token", "host", "all"],
        about(
            "Who may read /metrics without a token: nobody; programs of this host; or whoever "
            "reaches the admin listener."
        ),
    ] = "host"
    census_seconds: Annotated[
        int,
        about(
            "How long to rest between walks over all accounts, which sum up balances and holds; "
            "0: none. A walk reads at most 500 accounts a second.",
            ge=0,
            le=86_400,
        ),
    ] = 30
    audit_hours: Annotated[
        int,
        about(
            "Within how many hours each bucket is audited once, evenly spread; 0: not by itself.",
            ge=0,
            le=8_760,
        ),
    ] = 24
