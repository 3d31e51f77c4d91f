"""Expands shortcuts: the common case of a script, written straight through for a chain's length.

A store spends most of a script's time on making functions and small tables, and on every value
that is packed or unpacked. So the common case of the hot scripts does without what it can do
without, in `includes/<name>_shortcut.lua`: it decides, and answers, only what the script's own
rules decide alike, and leaves its block for them, with nothing changed, on whatever else it meets.
It is repeated for chains of each length, so that what belongs to a leg lives in local variables.
The notation:

- `--- @include "name"` is replaced by that file, which several shortcuts share, as often as it
  stands;
- `legs` is the number of legs; a block from `--- @each leg` to `--- @end` is repeated for every
  leg, with its number for `leg` and for the end of names as `hold_leg`; `EACH(a_leg, b_leg)` is
  the list of these of all legs;
- `--- @unpack call_head as call_, each call_leg as call_ from record` makes local variables of the
  fields: `call_state`, `call_billing_1`. `i8 as hold` is one bare value. Fields after the last that
  the shortcut needs are not read;
- neighbours that the shortcut does not name stay packed, as one variable that is called after the
  first of them: `account_packed_day_mark`. The seldom fields of an account's state are always so;
- `--- @counter of call_call_class` finds where an account's state counts the calls of a class, and
  leaves the block for a class that shortcuts do not count. The counters of all classes are then
  three variables, of which two stay packed: the class's number is `account_counters_first` if
  `counter_is_first`, else `account_counters_second`;
- `PACKED("call_head as call_, each call_leg as call_, text as tail")` is the reverse of an unpack;
  a `text` is put in as it is, last;
- `ANSWER(a, b)` is a script's answer of integers as one string, eight bytes each: a table costs
  the store three times as much. `replies.read_answer` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from authz.errors import InvariantError
from authz.reasons import CallClass
from authz.store.layouts import ACCOUNT_STATE, LAYOUTS

_EACH_BLOCK = re.compile(r"^ *--- @each leg\n(.*?)^ *--- @end\n", re.MULTILINE | re.DOTALL)
_EACH_LIST = re.compile(r"\bEACH\(([^()]*)\)")
_UNPACK = re.compile(r"^( *)--- @unpack (.+?) from (.+)$", re.MULTILINE)
_COUNTER = re.compile(r"^ *--- @counter of (.+)$", re.MULTILINE)
_PACKED = re.compile(r'\bPACKED\("([^"]+)"\)')
_ANSWER = re.compile(r"\bANSWER\(([^()]*)\)")
_RECORD = re.compile(r"(each )?([a-z_0-9]+) as ([a-z_]+)")
_COMMENT = re.compile(r"^ *--(?!- @).*\n", re.MULTILINE)

#: The counters of an account's state by class, in their order, and the bytes of each.
_COUNTERS = tuple(name for name in ACCOUNT_STATE.names if name.startswith("calls_"))
_COUNTER_SIZE = 8
#: Classes whose calls shortcuts count, the most frequent first.
_COUNTED = (CallClass.NATIONAL, CallClass.INTERNATIONAL, CallClass.TOLLFREE)

#: One value of a packed record: its format for Lua and the name of its variable.
_Value = tuple[str, str]


def expand_shortcut(source: str, name: str, legs: int) -> str:
    """Return the Lua of a shortcut for chains of that many legs; constants keep their names."""
    return _Shortcut(source, name, legs).expand()


class _Shortcut:
    """One shortcut, repeated for each leg, on its way to Lua."""

    def __init__(self, source: str, name: str, legs: int) -> None:
        self._name = name
        self._legs = legs
        source = _EACH_BLOCK.sub(self._each_block, _COMMENT.sub("", source))
        self._source = _EACH_LIST.sub(self._each_list, source)
        self._counts = _COUNTER.search(source) is not None
        #: The formats that depend on the class, by their text for each: the variable's name.
        self._formats: dict[tuple[str, ...], str] = {}
        self._named = set(re.findall(r"\w+", _PACKED.sub("", _UNPACK.sub("", self._source))))
        #: Variables that come from an unpacked record, and those that go into a packed one.
        self._read = {name for _, name in self._all_values(_UNPACK, 2)}
        self._written = {name for _, name in self._all_values(_PACKED, 1)}

    def expand(self) -> str:
        """Return all of it as Lua."""
        expanded = _UNPACK.sub(self._unpack, self._source)
        expanded = _PACKED.sub(self._pack, _ANSWER.sub(_answer, expanded))
        # Last: by now the formats are known.
        expanded = _COUNTER.sub(self._counter, expanded)
        return re.sub(r"\blegs\b", str(self._legs), expanded)

    def _all_values(self, pattern: re.Pattern[str], group: int) -> Iterator[_Value]:
        for match in pattern.finditer(self._source):
            yield from self._values(match[group], _COUNTED[0])

    def _each_block(self, match: re.Match[str]) -> str:
        return "".join(_of_leg(match[1], leg) for leg in range(1, self._legs + 1))

    def _each_list(self, match: re.Match[str]) -> str:
        return ", ".join(_of_leg(match[1], leg) for leg in range(1, self._legs + 1))

    def _unpack(self, match: re.Match[str]) -> str:
        indent, records, data = match.groups()
        values = self._values(records, _COUNTED[0])
        count = len(values)
        while count and values[count - 1][1] not in self._named | self._written:
            count -= 1
        if not count:
            raise InvariantError(f"{self._name} unpacks {records}, of which it uses nothing")
        names = ", ".join(name for _, name in values[:count])
        return f"{indent}local {names} = struct.unpack({self._format(records, count)}, {data})"

    def _pack(self, match: re.Match[str]) -> str:
        values = self._values(match[1], _COUNTED[0])
        for _, name in values:
            if name not in self._named | self._read:
                raise InvariantError(f"{self._name} packs {name}, which nothing has set")
        names = ", ".join(name for _, name in values)
        return f"struct.pack({self._format(match[1], len(values))}, {names})"

    def _counter(self, match: re.Match[str]) -> str:
        formats = list(self._formats.values())
        lines = [f"local {', '.join(['counter_is_first', *formats])}"]
        for place, call_class in enumerate(_COUNTED):
            is_first = "true" if _counter_place(call_class) == 0 else "false"
            texts = [texts[place] for texts in self._formats]
            lines += [
                f"{'if' if place == 0 else 'elseif'} {match[1]} == {call_class:d} then",
                f"{', '.join(['counter_is_first', *formats])} = {', '.join([is_first, *texts])}",
            ]
        return "\n".join([*lines, "else break end"])

    def _format(self, records: str, count: int) -> str:
        """Return the format of the first `count` values of the records, as Lua has it."""
        formats = []
        for call_class in _COUNTED:
            values = self._values(records, call_class)[:count]
            formats.append(f'">{"".join(code for code, _ in values)}"')
        if len(set(formats)) == 1:
            return formats[0]
        return self._formats.setdefault(tuple(formats), f"counter_format_{len(self._formats) + 1}")

    def _values(self, records: str, call_class: CallClass) -> list[_Value]:
        values: list[_Value] = []
        for record in records.split(", "):
            match = _RECORD.fullmatch(record)
            if match is None:
                raise InvariantError(f"{self._name} has a record without a name: {record}")
            each, kind, prefix = match.groups()
            for suffix in [f"_{leg}" for leg in range(1, self._legs + 1)] if each else [""]:
                if kind in LAYOUTS:
                    values += self._fields(kind, prefix, suffix, call_class)
                else:
                    values.append(("c0" if kind == "text" else kind, f"{prefix}{suffix}"))
        return values

    def _fields(
        self, kind: str, prefix: str, suffix: str, call_class: CallClass
    ) -> Iterator[_Value]:
        """Yield the values of one record, with neighbours that nobody names as one."""
        fields = LAYOUTS[kind].lua_fields()
        if kind == ACCOUNT_STATE.name and self._counts:
            fields = _with_one_counter(fields, call_class)
        unnamed: list[_Value] = []
        for field, code in [*fields, ("", "")]:
            if field and f"{prefix}{field}{suffix}" not in self._named:
                unnamed.append((code, field))
                continue
            if len(unnamed) == 1:
                yield unnamed[0][0], f"{prefix}{unnamed[0][1]}{suffix}"
            elif unnamed:
                size = sum(_size(one) for one, _ in unnamed)
                yield f"c{size}", f"{prefix}packed_{unnamed[0][1]}{suffix}"
            unnamed.clear()
            if field:
                yield code, f"{prefix}{field}{suffix}"


def _answer(match: re.Match[str]) -> str:
    return f'struct.pack(">{"i8" * len(match[1].split(","))}", {match[1]})'


def _of_leg(text: str, leg: int) -> str:
    return re.sub(r"(?<=_)leg\b|\bleg\b", str(leg), text)


def _size(code: str) -> int:
    """Return the bytes of a value by its format for Lua."""
    return 1 if code == "B" else int(code[1:])


def _counter_place(call_class: CallClass) -> int:
    return _COUNTERS.index(f"calls_{call_class.label}")


def _with_one_counter(fields: list[_Value], call_class: CallClass) -> list[_Value]:
    """Return an account's fields, where of all counters only that of the class is unpacked.

    They are three whatever the class, and none is empty, so that the variables are the same.
    """
    before = _counter_place(call_class)
    after = len(_COUNTERS) - 1 - before
    codes = [f"c{before * _COUNTER_SIZE}", "i8", f"c{after * _COUNTER_SIZE}"]
    if before == 0:
        half = after // 2
        codes = ["i8", f"c{half * _COUNTER_SIZE}", f"c{(after - half) * _COUNTER_SIZE}"]
    counters = [
        (f"counters_{name}", code)
        for name, code in zip(("first", "second", "third"), codes, strict=True)
    ]
    first = [name for name, _ in fields].index(_COUNTERS[0])
    return [*fields[:first], *counters, *fields[first + len(_COUNTERS) :]]
