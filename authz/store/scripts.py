"""Loads the Lua scripts: resolves includes, writes in layouts and constants, computes the SHA-1.

A script is a file `<verb>-<number of keys>.lua`. A line `--- @include "name"` is replaced by
`includes/name.lua`, once; a line `--- @layout name, ...` by the codecs of those layouts; every
`REASON_...`, `KIND_...` and so on by its number. A name that does not exist is an error.
Functions that a script does not use are left out: a store makes every function of a script anew
at every call, which costs more than most of them do.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from authz.errors import InvariantError
from authz.store.constants import lua_constants
from authz.store.layouts import LAYOUTS

_INCLUDE = re.compile(r'^--- @include "([a-z_]+)"$')
_LAYOUT = re.compile(r"^--- @layout (.+)$")
_FILE_NAME = re.compile(r"^([a-z_]+)-(\d+)\.lua$")
_FUNCTION = re.compile(r"^local function ([a-z_]+)\(.*?^end\n", re.MULTILINE | re.DOTALL)
_STRING = re.compile(r'"[^"\n]*"')
_CONSTANT = re.compile(
    r"\b(?:REASON|OUTCOME|BILLING|CLASS|DIRECTION|STATE|MARK|KIND|POLICY|RECHARGE|LAYOUT|LIMIT"
    r"|BOUND|SPEND)_[A-Z_]+\b"
)


@dataclass(frozen=True)
class Script:
    """A flattened script as the store runs it."""

    name: str
    number_of_keys: int
    source: str
    sha1: str


def _resolve(lines: list[str], seen: set[str], stack: tuple[str, ...]) -> list[str]:
    resolved: list[str] = []
    for line in lines:
        if match := _INCLUDE.match(line):
            name = match[1]
            if name in stack:
                raise InvariantError("include cycle: " + " -> ".join((*stack, name)))
            if name not in seen:
                seen.add(name)
                resource = files("authz_lua.includes") / f"{name}.lua"
                if not resource.is_file():
                    raise InvariantError(f"no include {name}.lua: " + " -> ".join(stack))
                included = resource.read_text(encoding="utf-8").splitlines()
                resolved += _resolve(included, seen, (*stack, name))
        elif match := _LAYOUT.match(line):
            for name in (part.strip() for part in match[1].split(",")):
                if name not in LAYOUTS:
                    raise InvariantError(f"no layout {name}: " + " -> ".join(stack))
                if f"layout {name}" not in seen:
                    seen.add(f"layout {name}")
                    resolved += LAYOUTS[name].lua_codec().splitlines()
        elif not line.lstrip().startswith("--") and line.strip():
            resolved.append(line.rstrip())
    return resolved


def _without_unused(source: str) -> str:
    """Return the source without functions at its top level that nothing in it calls."""
    while True:
        words = Counter(re.findall(r"\w+", _STRING.sub("", source)))
        unused = [match for match in _FUNCTION.finditer(source) if words[match[1]] == 1]
        if not unused:
            return source
        for match in reversed(unused):
            source = source[: match.start()] + source[match.end() :]


def flatten(text: str, name: str) -> str:
    """Return the source of one script: what it includes and uses, with numbers for names."""
    constants = lua_constants()

    def number(match: re.Match[str]) -> str:
        if match[0] not in constants:
            raise InvariantError(f"{name} names {match[0]}, which does not exist")
        value = constants[match[0]]
        return f"(0 - {-value})" if value < 0 else str(value)

    source = "\n".join(_resolve(text.splitlines(), set(), (name,)))
    return _without_unused(_CONSTANT.sub(number, source) + "\n")


@cache
def load_scripts() -> dict[str, Script]:
    """Return every shipped script by its verb."""
    scripts: dict[str, Script] = {}
    for resource in files("authz_lua").iterdir():
        match = _FILE_NAME.match(resource.name)
        if match is None:
            continue
        source = flatten(resource.read_text(encoding="utf-8"), resource.name)
        sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        scripts[match[1]] = Script(match[1], int(match[2]), source, sha1)
    return scripts
