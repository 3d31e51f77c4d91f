"""Kazoo: answers its applications over the message broker that they talk by."""

from __future__ import annotations
