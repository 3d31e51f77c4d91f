"""What every decision puts together as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

def pack_script_call(
    sha1: str, keys: Sequence[bytes], arguments: Sequence[bytes | int | str]
) -> bytes:
    """Return `EVALSHA sha1 <number of keys> keys... arguments...` as one RESP command.

    Raises TypeError for a key that is not bytes, or an argument that is no bytes, int or str.
    """

def pack_strings(texts: Iterable[str]) -> bytes:
    """Return texts one after the other, each cut to 255 bytes and led by its length."""
