"""FreeSWITCH: its event socket in both directions, and the ways into the engine built on it."""

from __future__ import annotations
