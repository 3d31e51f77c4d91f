"""The minimal pair: the smallest Lua authorize and settle that debit two accounts.

It may be repeated without debiting twice, as any that is used must; else it does nothing that
could be left out.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from authz.store.connection import pack_command
from authz.store.scripts import Script
from benchmarks.pipeline import Pipeline

_LUA: Final = Path(__file__).parent / "lua"
_FILE_NAME: Final = re.compile(r"^([a-z_]+)-(\d+)\.lua$")
#: Amounts of the calls that authz is measured with.
_HOLDS: Final = (10_000, 5_000)
_COSTS: Final = (10_000, 4_500)
#: Both as long as authz's own of such a call.
_RATES: Final = b"\1" * 60
_LEDGER_ENTRY: Final = b"\1" * 160
_LEASE_SECONDS: Final = 270


def minimal_scripts() -> dict[str, Script]:
    """Return the pair by name."""
    scripts = {}
    for path in sorted(_LUA.iterdir()):
        match = _FILE_NAME.match(path.name)
        if match is not None:
            lines = path.read_text(encoding="utf-8").splitlines()
            source = "\n".join(line for line in lines if not line.startswith("--")) + "\n"
            sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            scripts[match[1]] = Script(match[1], int(match[2]), source, sha1)
    return scripts


class MinimalPair:
    """Two accounts of the minimal pair on a store, and the commands of their calls."""

    def __init__(self, store: Pipeline, tag: str = "0") -> None:
        self._scripts = minimal_scripts()
        self._prefix = f"minimal:{{{tag}}}:"
        for script in self._scripts.values():
            store.execute("SCRIPT", "LOAD", script.source)
        for account in ("sub", "master"):
            store.execute("HSET", self._key(account), "balance", 10**15)

    def balances(self, store: Pipeline) -> tuple[int, int]:
        """Return the micros of both accounts."""
        sub, master = (
            int(store.execute("HGET", self._key(account), "balance"))
            for account in ("sub", "master")
        )
        return sub, master

    def commands(self, kind: str, call_ids: Sequence[str]) -> list[bytes]:
        """Return the packed commands of one kind (`authorize`, `settle`) for many calls."""
        make = self._authorize if kind == "authorize" else self._settle
        return [make(call_id) for call_id in call_ids]

    def _key(self, name: str) -> bytes:
        return (self._prefix + name).encode()

    def _keys(self, call_id: str) -> list[bytes]:
        names = (f"call:sub:{call_id}", "leases", "sub", "master")
        return [self._key(name) for name in names]

    def _authorize(self, call_id: str) -> bytes:
        return self._pack(
            "minimal_authorize",
            self._keys(call_id),
            [*_HOLDS, struct.pack(">qq", *_HOLDS) + _RATES, f"sub:{call_id}", _LEASE_SECONDS],
        )

    def _settle(self, call_id: str) -> bytes:
        return self._pack(
            "minimal_settle",
            [*self._keys(call_id), self._key("ledger")],
            [*_COSTS, _LEDGER_ENTRY, f"sub:{call_id}"],
        )

    def _pack(self, name: str, keys: list[bytes], arguments: list[bytes | str | int]) -> bytes:
        sha1 = self._scripts[name].sha1
        return pack_command((b"EVALSHA", sha1, len(keys), *keys, *arguments))
