"""authz decides, holds and books the money of telephone calls."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("authz")
