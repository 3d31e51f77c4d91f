"""Conventions of the Lua scripts that keep money exact and every script one bounded step.

Redis reads a Lua number as a double and a negated zero as text that HINCRBY refuses, so how a
script writes its arithmetic is a matter of money. A rule returns complaints, `name:line: what`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

LUA = Path(__file__).resolve().parents[2] / "lua"
SCRIPTS = sorted(LUA.glob("*.lua"))
INCLUDES = sorted((LUA / "includes").glob("*.lua"))

_FILE_NAME = re.compile(r"[a-z_]+-(\d+)\.lua\Z")
#: What the comment that opens a script says, in this order.
_HEADINGS = ("Purpose", "KEYS", "ARGV", "Returns", "Emits")
#: Commands whose work grows with the data, or that do not belong into a script at all.
_UNBOUNDED_COMMANDS = {
    "KEYS", "SCAN", "HGETALL", "HKEYS", "HVALS", "SMEMBERS", "SORT", "FLUSHALL", "FLUSHDB",
}  # fmt: skip
#: Names have their unit last, which tells that they are numbers.
_NUMBER_NAME = re.compile(
    r"(micros|nanos|seconds|_ms|_us|amount|balance|held|charged|sequence|version|count|cost)\Z"
)
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<comment>--\[\[.*?\]\]|--[^\n]*)
    |(?P<string>\[\[.*?\]\]|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<number>0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<operator>\.\.\.|\.\.|==|~=|<=|>=|[-+*/%^\#<>=(){}\[\];:,.])
    """,
    re.VERBOSE | re.DOTALL,
)
_WORDS_BEFORE_A_VALUE = {
    "and", "do", "else", "elseif", "if", "in", "not", "or", "return", "then", "until", "while",
}  # fmt: skip


class Token(NamedTuple):
    """A word of Lua. `kind` is a group of `_TOKEN`."""

    kind: str
    text: str
    line: int

    @property
    def ends_a_value(self) -> bool:
        """Whether a minus after it subtracts instead of negating."""
        if self.kind == "name":
            return self.text not in _WORDS_BEFORE_A_VALUE
        return self.kind in {"number", "string"} or self.text in {")", "]", "}"}


START = Token("operator", ";", 0)


def tokens_of(source: str) -> Iterator[Token]:
    """Yield the words of a Lua source without spaces and comments."""
    position = 0
    line = 1
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            raise ValueError(f"line {line}: no Lua: {source[position : position + 20]!r}")
        kind = str(match.lastgroup)
        if kind not in {"space", "comment"}:
            yield Token(kind, match[0], line)
        line += match[0].count("\n")
        position = match.end()


def _is_a_number(token: Token) -> bool:
    return token.kind == "number" or (
        token.kind == "name" and _NUMBER_NAME.search(token.text) is not None
    )


def _format_complaint(name: str, token: Token) -> str | None:
    if token.kind != "string":
        return f"{name}:{token.line}: a format that is no literal"
    wrong = [spec for spec in re.findall(r"%[^a-z%]*[a-z%]", token.text) if spec != "%.0f"]
    return f"{name}:{token.line}: {wrong[0]} in a format; only %.0f is exact" if wrong else None


def lua_complaints(source: str, name: str) -> list[str]:
    """Complain of negated values, of text made from numbers, and of unbounded or clock calls."""
    complaints = []
    words = [START, START, *tokens_of(source), START]
    for place in range(2, len(words) - 1):
        before, token, after = words[place - 1], words[place], words[place + 1]
        where = f"{name}:{token.line}"
        if token.text == "-" and not before.ends_a_value and not re.match("[1-9]", after.text):
            complaints.append(f"{where}: -{after.text} may be -0; write 0 - {after.text}")
        elif token.text == ".." and (_is_a_number(before) or _is_a_number(after)):
            complaints.append(f"{where}: joins the number {before.text} .. {after.text}")
        elif token.text == "tostring" or (token.text == "os" and after.text == "."):
            complaints.append(f"{where}: {token.text}")
        elif token.text == "random" and before.text == ".":
            complaints.append(f"{where}: a script decides by its arguments alone")
        elif token.kind == "string" and token.text.strip("\"'").upper() in _UNBOUNDED_COMMANDS:
            complaints.append(f"{where}: {token.text} is not bounded")
        elif token.text == "(" and before.text == "format" and words[place - 2].text in ".:":
            complaints += filter(None, [_format_complaint(name, after)])
    return complaints


def header_complaints(source: str, file_name: str) -> list[str]:
    """Complain when a script's opening comment or name does not tell its keys."""
    match = _FILE_NAME.match(file_name)
    if match is None:
        return [f"{file_name}:1: not named <verb>-<number of keys>.lua"]
    header = re.match(r"(?:--[^\n]*\n)*", source)
    text = re.sub(r"^--+ ?", "", header[0] if header else "", flags=re.MULTILINE)
    found = re.findall(rf"^({'|'.join(_HEADINGS)}):", text, flags=re.MULTILINE)
    if found != list(_HEADINGS):
        return [f"{file_name}:1: the header says {found}, not {list(_HEADINGS)}"]
    keys_text = text[text.index("\nKEYS:") : text.index("\nARGV:")]
    keys = [int(number) for number in re.findall(r"(?:[:,]\s+|\.\.)(\d+)\b", keys_text)]
    if max(keys, default=0) != int(match[1]):
        return [f"{file_name}:1: named {match[1]} keys, the header tells {max(keys, default=0)}"]
    used = [int(number) for number in re.findall(r"\bKEYS\[(\d+)\]", source)]
    if max(used, default=0) > int(match[1]):
        return [f"{file_name}:1: uses KEYS[{max(used)}]"]
    return []


@pytest.mark.parametrize(
    "source",
    [
        "x = -y",
        "return -y",
        "f(-y)",
        "x = a and -b",
        "x = a * -b",
        "x = -(a)",
        "x = -0",
        "local x\n= -#y",
        'key = "a" .. 1',
        'key = "a" .. amount_micros',
        'key = now_seconds .. ":"',
        "x = tostring(1)",
        "x = os.time()",
        "x = math.random()",
        'redis.call("HGETALL", KEYS[1])',
        "redis.call('keys', '*')",
        'x = string.format("%d", 1)',
        'x = ("%s"):format(1)',
        "x = string.format(y, 1)",
    ],
)
def test_the_lua_rule_catches(source: str) -> None:
    assert lua_complaints(source, "x.lua")


@pytest.mark.parametrize(
    "source",
    [
        "x = 0 - y",
        "x = y - z",
        "x = f(y) - z",
        "x = t[1]\n  - z",
        "x = -1",
        "-- x = -y",
        'x = "a" .. name .. ":"',
        'x = string.format("%.0f-%.0f", 1, 2)',
        'x = string.match(y, "%d+")',
        "x = #t - y",
    ],
)
def test_the_lua_rule_lets_pass(source: str) -> None:
    assert not lua_complaints(source, "x.lua")


def test_the_header_rule_catches() -> None:
    header = (
        "-- Purpose: p\n-- KEYS: 1 call, 2..3 accounts\n-- ARGV: 1 x\n-- Returns: r\n-- Emits: e\n"
    )
    assert header_complaints(header, "settle-3.lua") == []
    assert header_complaints(header, "settle.lua")
    assert header_complaints(header, "settle-2.lua")
    assert header_complaints(header + "return KEYS[4]", "settle-3.lua")
    assert header_complaints(header.replace("Emits", "Sends"), "settle-3.lua")


def test_scripts_keep_to_the_rules() -> None:
    complaints = []
    for path in SCRIPTS + INCLUDES:
        complaints += lua_complaints(path.read_text(encoding="utf-8"), path.name)
    assert SCRIPTS
    assert complaints == []


def test_scripts_open_with_their_contract() -> None:
    complaints = []
    for path in SCRIPTS:
        complaints += header_complaints(path.read_text(encoding="utf-8"), path.name)
    assert complaints == []


def test_includes_open_with_what_they_are_for() -> None:
    assert [
        path.name for path in INCLUDES if not re.match(r"-- \w", path.read_text(encoding="utf-8"))
    ] == []
