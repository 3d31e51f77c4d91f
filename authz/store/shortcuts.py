"""Expands shortcuts: the common case of a script, written straight through for a chain's length.

A store spends most of a script's time on making functions and small tables. So the common case
of the hot scripts is written without any, in `includes/<name>_shortcut.lua`: it decides, and
answers, only what the script's own rules decide alike, and leaves its block for them, with nothing
changed, on whatever else it meets. It is repeated for chains of each length, so that what belongs
to a leg lives in local variables. The notation:

- `legs` is the number of legs; a block from `--- @each leg` to `--- @end` is repeated for every
  leg, with its number for `leg` and for the end of names as `hold_leg`; `EACH(a_leg, b_leg)` is
  the list of these of all legs;
- `--- @unpack call_head as call_, each call_leg as call_ from record` makes local variables of the
  fields: `call_state`, `call_billing_1`. `i8 as hold` is one bare value. Fields after the last that
  the shortcut names are not read;
- `PACKED("call_head as call_, each call_leg as call_, text as tail")` is the reverse; a `text` is
  put in as it is, last.

The seldom fields of an account's state stay packed in `<prefix>rest`.
"""

from __future__ import annotations

import re

from authz.errors import InvariantError
from authz.store.layouts import LAYOUTS

_EACH_BLOCK = re.compile(r"^ *--- @each leg\n(.*?)^ *--- @end\n", re.MULTILINE | re.DOTALL)
_EACH_LIST = re.compile(r"\bEACH\(([^()]*)\)")
_UNPACK = re.compile(r"^( *)--- @unpack (.+?) from (.+)$", re.MULTILINE)
_PACKED = re.compile(r'\bPACKED\("([^"]+)"\)')
_RECORD = re.compile(r"(each )?([a-z_0-9]+) as ([a-z_]+)")
_COMMENT = re.compile(r"^ *--(?!- @).*\n", re.MULTILINE)

#: One value of a packed record: its format for Lua and the name of its variable.
_Value = tuple[str, str]


def expand_shortcut(source: str, name: str, legs: int) -> str:
    """Return the Lua of a shortcut for chains of that many legs; constants keep their names."""

    def each_block(match: re.Match[str]) -> str:
        return "".join(_of_leg(match[1], leg) for leg in range(1, legs + 1))

    def each_list(match: re.Match[str]) -> str:
        return ", ".join(_of_leg(match[1], leg) for leg in range(1, legs + 1))

    def pack(match: re.Match[str]) -> str:
        values = _values(match[1], legs, name)
        return f"struct.pack({_format(values)}, {', '.join(value[1] for value in values)})"

    expanded = _EACH_LIST.sub(each_list, _EACH_BLOCK.sub(each_block, _COMMENT.sub("", source)))
    expanded = _PACKED.sub(pack, expanded)
    named = set(re.findall(r"\w+", _UNPACK.sub("", expanded)))

    def unpack(match: re.Match[str]) -> str:
        values = _values(match[2], legs, name)
        while values and values[-1][1] not in named:
            values.pop()
        if not values:
            raise InvariantError(f"{name} unpacks {match[2]}, of which it uses nothing")
        names = ", ".join(value[1] for value in values)
        return f"{match[1]}local {names} = struct.unpack({_format(values)}, {match[3]})"

    return re.sub(r"\blegs\b", str(legs), _UNPACK.sub(unpack, expanded))


def _of_leg(text: str, leg: int) -> str:
    return re.sub(r"(?<=_)leg\b|\bleg\b", str(leg), text)


def _format(values: list[_Value]) -> str:
    return f'">{"".join(value[0] for value in values)}"'


def _values(records: str, legs: int, name: str) -> list[_Value]:
    values: list[_Value] = []
    for record in records.split(", "):
        match = _RECORD.fullmatch(record)
        if match is None:
            raise InvariantError(f"{name} has a record without a name: {record}")
        each, kind, prefix = match.groups()
        suffixes = [f"_{leg}" for leg in range(1, legs + 1)] if each else [""]
        for suffix in suffixes:
            if kind in LAYOUTS:
                values += [
                    (code, f"{prefix}{field}{suffix}") for field, code in LAYOUTS[kind].lua_fields()
                ]
            else:
                values.append(("c0" if kind == "text" else kind, f"{prefix}{suffix}"))
    return values
