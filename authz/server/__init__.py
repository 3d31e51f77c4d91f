"""Processes: supervisor, hook workers, office."""

from __future__ import annotations
