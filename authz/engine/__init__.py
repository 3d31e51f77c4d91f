"""Decides calls, holds money for them and books their cost."""

from __future__ import annotations
