"""All knowledge of Redis and Valkey: client, scripts, keys, layouts, embedded server."""

from __future__ import annotations
