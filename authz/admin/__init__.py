"""The admin API for operators."""

from __future__ import annotations
