"""Types of the cached wall clock."""

from __future__ import annotations

from typing import final

#: Last moment, in Unix seconds, with a wall clock.
MOMENT_MAX: int

@final
class Zone:
    """One IANA time zone. Get it from `zone`, which keeps one object for each name."""

    def __new__(cls, name: str) -> Zone: ...
    @property
    def name(self) -> str:
        """The IANA name."""

    def offset_at(self, moment: int) -> int:
        """Return the seconds to add to UTC at `moment` (Unix seconds, 0 to MOMENT_MAX)."""

def zone(name: str) -> Zone:
    """Return the Zone of an IANA name; ValueError for one that the host does not know."""
