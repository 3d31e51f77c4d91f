"""The Lua scripts of authz, one file a script; authz.store.scripts loads them."""

from __future__ import annotations
