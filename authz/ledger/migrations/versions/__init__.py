"""One module for each change of the archive's tables, in the order of their numbers."""

from __future__ import annotations
