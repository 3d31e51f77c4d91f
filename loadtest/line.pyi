"""One kept-alive, pipelined connection of a generator; only `loadtest.caller` has any."""

from __future__ import annotations

class Line:
    """Requests leave together; their answers come in the same order."""
