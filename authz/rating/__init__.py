"""Decks: import, compile, publish and quote prices."""

from __future__ import annotations
