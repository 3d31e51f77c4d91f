"""Compiled parts of authz: rating, prefix table, number rules, call gate."""

from __future__ import annotations
