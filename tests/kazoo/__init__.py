"""Kazoo's side of the message broker, for tests of the agent."""

from __future__ import annotations
