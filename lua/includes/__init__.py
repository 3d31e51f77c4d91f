"""Parts that several Lua scripts include."""

from __future__ import annotations
