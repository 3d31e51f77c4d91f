"""The cyclic garbage collector of a process that decides calls: all of them wait while it looks.

Only connections, errors and accounts that have changed leave cycles. What an engine remembers of
its calls is nothing that the collector walks over (tests/integration/test_engine_memory.py).
"""

from __future__ import annotations

import gc
from typing import Final

#: How many new objects, and looks at younger ones, come before a look at young, middle and old.
_THRESHOLDS: Final = (10_000, 10, 100)


def settle_memory() -> None:
    """Spare the collector what a process has begun with, and let it look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
