"""Loads the Lua scripts: resolves includes, writes in layouts and constants, computes the SHA-1.

A script is a file `<verb>-<number of keys>.lua`. A line `--- @include "name"` is replaced by
`includes/name.lua`, once; a line `--- @layout name, ...` by the codecs of those layouts; every
`REASON_...`, `KIND_...` and so on by its number. A name that does not exist is an error.

A store makes every function of a script anew at every call, which costs more than most of them
do. So functions that a script does not use are left out, records are unpacked where that is
asked for, and the functions marked `--- @seldom` are made only when one of them is called. A
script with a line `--- @shortcut "name"` exists once for each length of a chain, see
`shortcuts.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from authz.errors import InvariantError
from authz.model import CHAIN_LENGTH_MAX
from authz.store.constants import lua_constants
from authz.store.layouts import LAYOUTS
from authz.store.shortcuts import expand_shortcut

_INCLUDE = re.compile(r'^--- @include "([a-z_]+)"$')
_SHORTCUT = re.compile(r'^--- @shortcut "([a-z_]+)"\n', re.MULTILINE)
_PART = re.compile(r'^ *--- @include "([a-z_]+)"\n', re.MULTILINE)
_LAYOUT = re.compile(r"^--- @layout (.+)$")
_FILE_NAME = re.compile(r"^([a-z_]+)-(\d+)\.lua$")
_FUNCTION = re.compile(
    r"^(--- @seldom\n)?local function ([a-z_]+)\(.*?^end\n", re.MULTILINE | re.DOTALL
)
_UNPACK = re.compile(r"^( *)(local )?([a-z_.]+) = unpack_([a-z_]+)\(([^()]+)\)$", re.MULTILINE)
_PACK = re.compile(r"(?<![a-z_])pack_([a-z_]+)\((?:([a-z_]+)|\{([^{}]*)\})\)")
_PAIR = re.compile(r",\s*(?=[a-z_]+ = )")
_SELDOM_MARK = "--- @seldom"
_SELDOM_FUNCTION = re.compile(
    rf"^{_SELDOM_MARK}\n(local function ([a-z_]+)\(.*?^end\n)", re.MULTILINE | re.DOTALL
)
_LAST_STATEMENT = re.compile(r"^return [a-z_]+\([^\n]*\)\n\Z", re.MULTILINE)
_STRING = re.compile(r'"[^"\n]*"')
_SIZE = re.compile(r"\bSIZE_([a-z_]+)\b")
_CONSTANT = re.compile(
    r"\b(?:REASON|OUTCOME|BILLING|EXCUSE|CLASS|DIRECTION|STATE|MARK|KIND|POLICY|RECHARGE|PER_LEG"
    r"|LAYOUT|LIMIT|BOUND|SPEND|CLOSED|TRUNKS|DENIED)_[A-Z_]+\b"
)


@dataclass(frozen=True)
class Script:
    """A flattened script as the store runs it."""

    name: str
    number_of_keys: int
    source: str
    sha1: str
    #: The length of the chains that it is for; None: of any.
    legs: int | None = None

    def check_keys(self, count: int) -> None:
        """Raise InvariantError if the script does not take so many keys."""
        if count != self.number_of_keys:
            raise InvariantError(
                f"script {self.name} takes {self.number_of_keys} keys, got {count}"
            )


def _read_include(name: str, stack: tuple[str, ...]) -> str:
    resource = files("authz_lua.includes") / f"{name}.lua"
    if not resource.is_file():
        raise InvariantError(f"no include {name}.lua: " + " -> ".join(stack))
    return resource.read_text(encoding="utf-8")


def _read_shortcut(file: str, script: str) -> str:
    """Return a shortcut with the parts that it shares with others, each where it stands."""
    text = _read_include(file, (script,))
    return _PART.sub(lambda match: _read_include(match[1], (script, file)), text)


def _resolve(lines: list[str], seen: set[str], stack: tuple[str, ...]) -> list[str]:
    resolved: list[str] = []
    for line in lines:
        if match := _INCLUDE.match(line):
            name = match[1]
            if name in stack:
                raise InvariantError("include cycle: " + " -> ".join((*stack, name)))
            if name not in seen:
                seen.add(name)
                included = _read_include(name, stack).splitlines()
                resolved += _resolve(included, seen, (*stack, name))
        elif match := _LAYOUT.match(line):
            for name in (part.strip() for part in match[1].split(",")):
                if name not in LAYOUTS:
                    raise InvariantError(f"no layout {name}: " + " -> ".join(stack))
                if f"layout {name}" not in seen:
                    seen.add(f"layout {name}")
                    resolved += LAYOUTS[name].lua_codec().splitlines()
        elif line == _SELDOM_MARK or (not line.lstrip().startswith("--") and line.strip()):
            resolved.append(line.rstrip())
    return resolved


def _write_codecs_in_place(source: str, script: str) -> str:
    """Return the source with calls that pack or unpack a record written out where they stand."""

    def expression(match: re.Match[str]) -> str:
        name, record, pairs = match.groups()
        layout = LAYOUTS.get(name)
        if layout is None or layout.is_lazy or source[: match.start()].endswith("function "):
            return match[0]
        if record is not None:
            return layout.lua_pack({one: f"{record}.{one}" for one in layout.names})
        values = dict(pair.strip().split(" = ", 1) for pair in _PAIR.split(pairs.strip(" ,\n")))
        if values.keys() != set(layout.names):
            raise InvariantError(f"{script} packs a {name} without some of its fields")
        return layout.lua_pack(values)

    def statement(match: re.Match[str]) -> str:
        indent, local, target, name, arguments = match.groups()
        if name not in LAYOUTS:
            return match[0]
        return indent + LAYOUTS[name].lua_unpack(target, arguments, is_local=bool(local))

    return _UNPACK.sub(statement, _PACK.sub(expression, source))


def _without_unused(source: str) -> str:
    """Return the source without functions at its top level that nothing in it calls."""
    while True:
        words = Counter(re.findall(r"\w+", _STRING.sub("", source)))
        unused = [match for match in _FUNCTION.finditer(source) if words[match[2]] == 1]
        if not unused:
            return source
        for match in reversed(unused):
            source = source[: match.start()] + source[match.end() :]


def _mark_seldom(source: str) -> str:
    """Return the source with a mark also on functions that only seldom ones call."""
    while True:
        often = _SELDOM_FUNCTION.sub("", source)
        words = Counter(re.findall(r"\w+", _STRING.sub("", often)))
        called = [match for match in _FUNCTION.finditer(often) if words[match[2]] == 1]
        if not called:
            return source
        for match in called:
            source = source.replace(match[0], f"{_SELDOM_MARK}\n{match[0]}")


def _gather_seldom(source: str, name: str) -> str:
    """Return the source with its seldom functions inside one, which makes and calls them."""
    functions = list(_SELDOM_FUNCTION.finditer(source))
    if not functions:
        return source
    last = _LAST_STATEMENT.search(source)
    if last is None:
        raise InvariantError(f"{name} does not end with the call of one function")
    body = "".join(match[1] for match in functions)
    choices = "".join(
        f'if name == "{match[2]}" then return {match[2]}(...) end\n' for match in functions
    )
    often = _SELDOM_FUNCTION.sub("", source[: last.start()])
    for match in functions:
        often = re.sub(rf"\b{match[2]}\(\)", f'seldom("{match[2]}")', often)
        often = re.sub(rf"\b{match[2]}\(", f'seldom("{match[2]}", ', often)
    return f"local seldom\n{often}seldom = function(name, ...)\n{body}{choices}end\n{last[0]}"


def flatten(text: str, name: str, legs: int | None = None) -> str:
    """Return the source of one script: what it includes and uses, with numbers for names.

    With `legs` it has its shortcut for chains of that many accounts, else only its own rules.
    """
    constants = lua_constants()

    def shortcut(match: re.Match[str]) -> str:
        file = f"{match[1]}_shortcut"
        return "" if legs is None else expand_shortcut(_read_shortcut(file, name), file, legs)

    text = _SHORTCUT.sub(shortcut, text)

    def number(match: re.Match[str]) -> str:
        if match[0] not in constants:
            raise InvariantError(f"{name} names {match[0]}, which does not exist")
        value = constants[match[0]]
        return f"(0 - {-value})" if value < 0 else str(value)

    def size(match: re.Match[str]) -> str:
        return str(LAYOUTS[match[1]].size) if match[1] in LAYOUTS else match[0]

    source = "\n".join(_resolve(text.splitlines(), set(), (name,)))
    source = _write_codecs_in_place(_CONSTANT.sub(number, _SIZE.sub(size, source)) + "\n", name)
    return _gather_seldom(_mark_seldom(_without_unused(source)), name)


def _read_scripts() -> Iterator[tuple[str, int, str]]:
    """Yield verb, number of keys and text of every shipped script."""
    for resource in files("authz_lua").iterdir():
        if match := _FILE_NAME.match(resource.name):
            yield match[1], int(match[2]), resource.read_text(encoding="utf-8")


@cache
def load_scripts() -> dict[str, Script]:
    """Return every shipped script by its verb; `<verb>_<legs>` for one with a shortcut."""
    scripts: dict[str, Script] = {}
    for verb, number_of_keys, text in _read_scripts():
        variants: dict[str, int | None] = {verb: None}
        if _SHORTCUT.search(text):
            variants = {f"{verb}_{legs}": legs for legs in range(1, CHAIN_LENGTH_MAX + 1)}
        for key, legs in variants.items():
            source = flatten(text, verb, legs)
            sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
            unused = 0 if legs is None else CHAIN_LENGTH_MAX - legs
            scripts[key] = Script(verb, number_of_keys - unused, source, sha1, legs)
    return scripts


@cache
def script_for(verb: str, legs: int) -> Script:
    """Return the script of a verb for chains of that many legs."""
    scripts = load_scripts()
    return scripts.get(f"{verb}_{legs}") or scripts[verb]
