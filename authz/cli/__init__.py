"""The authz command."""

from __future__ import annotations
