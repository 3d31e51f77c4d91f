"""The demonstration deck and the calls that make run places."""

from __future__ import annotations
