"""The archive: every movement of money, every event and every change, kept for ever in SQL."""

from __future__ import annotations
