"""What a page is put together from: parts that each read something, and may fail alone."""

from __future__ import annotations

from typing import Protocol

from authz.metrics.readings import Readings


class Part(Protocol):
    """One source of readings."""

    #: As in `authz.meters.table.PARTS`.
    name: str

    async def read(self) -> Readings:
        """Return what there is to tell; whatever it raises leaves only this part out."""
