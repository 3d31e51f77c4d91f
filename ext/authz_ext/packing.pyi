"""What every decision puts together as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

class PreparedCall:
    """A script about a call, prepared for a chain: most of a command is the same for all calls."""

    #: With its `sha1` and `legs`, see store/scripts.py.
    script: Any
    #: Whether the script answers one string of integers.
    answers_integers: bool
    #: The key of a call without its id, and the other keys.
    call_prefix: bytes
    other_keys: tuple[bytes, ...]

    def __init__(self, script: Any, call_prefix: bytes, other_keys: Iterable[bytes]) -> None: ...
    def keys(self, call_id: str) -> list[bytes]:
        """Return the script's keys for one call."""

    def pack(self, call_id: str, arguments: list[bytes]) -> bytes:
        """Return the command for one call; arguments are bytes, TypeError for anything else."""

def pack_script_call(
    sha1: str, keys: Sequence[bytes], arguments: Sequence[bytes | int | str]
) -> bytes:
    """Return `EVALSHA sha1 <number of keys> keys... arguments...` as one RESP command.

    Raises TypeError for a key that is not bytes, or an argument that is no bytes, int or str.
    """

def unpack_integers(packed: bytes) -> list[int]:
    """Return the integers of a script's answer: of every eight bytes one, the high byte first.

    ValueError unless it is 1 to 17 of them.
    """

def pack_strings(texts: Iterable[str]) -> bytes:
    """Return texts one after the other, each cut to 255 bytes and led by its length."""
