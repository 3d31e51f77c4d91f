"""Telling events: which receivers they concern, and getting them there at least once."""

from __future__ import annotations
