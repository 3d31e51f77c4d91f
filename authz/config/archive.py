"""The section of the settings for the archive."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from authz.config.fields import about


class ArchiveSettings(Struct, frozen=True, kw_only=True):
    """Where every movement of money is kept for ever."""

    url: Annotated[
        str | None,
        about(
            "The database that keeps the archive, sqlite:///… or postgresql://…; without one, a "
            "SQLite file in the state directory. Several hosts need PostgreSQL.",
            secret=True,
            restart=True,
            format="archive_url",
        ),
    ] = None
    delay_seconds: Annotated[
        int,
        about(
            "How old an entry of the store is before it is archived: as long as a failing store "
            "may forget it again. A query of history does not wait for it.",
            ge=0,
            le=60,
            restart=True,
        ),
    ] = 2
    keep_seconds: Annotated[
        int,
        about(
            "How long the store keeps what the archive holds too.",
            ge=0,
            le=604_800,
            restart=True,
        ),
    ] = 60
