"""The packed records of the store, each defined once; both codecs are generated from here.

A layout is a fixed sequence of big-endian fields. Python packs it with `struct`, Lua with the
`struct` library that Redis and Valkey carry; `lua_codec` writes the Lua side into the scripts.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any

from authz_ext.briefing import Template

#: Stands for "no limit" or "no threshold" where 0 and negative amounts mean something.
NONE = -9_000_000_000_000_000
#: Number of this generation of record layouts; the first byte or field of every record.
LAYOUT_NUMBER = 2
#: First byte of a call record whose id its authorize has entered into the filter of its day;
#: of an older one only its settle does, see `includes/closed.lua`.
CALL_LAYOUT_NUMBER = 3

_CODES = {  # ours: (Python struct, Lua struct)
    "i64": ("q", "i8"),
    "i56": ("7s", "i7"),
    "u40": ("5s", "I5"),
    "i32": ("i", "i4"),
    "u32": ("I", "I4"),
    "u16": ("H", "I2"),
    "u8": ("B", "B"),
    "digest8": ("8s", "c8"),
}

#: Widths that Python's `struct` does not know, by whether they have a sign.
_IS_SIGNED = {"i56": True, "u40": False}


class Layout:
    """One packed record: names and widths of its fields, in order.

    The fields from `lazy_from` on are seldom needed: the scripts carry them along packed until
    one asks for them.
    """

    def __init__(self, name: str, fields: str, *, lazy_from: str | None = None) -> None:
        self.name = name
        self.fields: list[tuple[str, str]] = []
        for line in fields.split(","):
            field_name, code = line.split(":")
            self.fields.append((field_name.strip(), code.strip()))
        self.struct = struct.Struct(">" + "".join(_CODES[code][0] for _, code in self.fields))
        self.names = tuple(field_name for field_name, _ in self.fields)
        self.size = self.struct.size
        self.eager = len(self.names) if lazy_from is None else self.names.index(lazy_from)
        self._tuple: Any = namedtuple(name, self.names)  # type: ignore[misc]
        self._odd = [
            (place, _IS_SIGNED[code])
            for place, (_, code) in enumerate(self.fields)
            if code in _IS_SIGNED
        ]
        #: `pack(*, field=0, ...)` returns the record as bytes.
        self.pack = self._make_pack()

    @property
    def is_lazy(self) -> bool:
        """Whether some fields stay packed in the scripts until they are asked for."""
        return self.eager < len(self.names)

    def places(self) -> dict[str, tuple[int, int, bool]]:
        """Return where each number is: its offset and width in bytes, and whether it has a sign."""
        places = {}
        offset = 0
        for name, code in self.fields:
            width = struct.calcsize(">" + _CODES[code][0])
            is_signed = code.startswith("i")
            places[name] = (offset, width, is_signed)
            offset += width
        return places

    def lua_format(self, first: int = 0, end: int | None = None) -> str:
        """Return the format of the fields from place `first` to before `end`, for Lua."""
        return ">" + "".join(_CODES[code][1] for _, code in self.fields[first:end])

    def lua_fields(self) -> list[tuple[str, str]]:
        """Return names and Lua formats of the fields; lazy ones are one, `rest`, left packed."""
        fields = [(name, _CODES[code][1]) for name, code in self.fields[: self.eager]]
        if self.is_lazy:
            rest = "".join(_CODES[code][0] for _, code in self.fields[self.eager :])
            fields.append(("rest", f"c{struct.calcsize('>' + rest)}"))
        return fields

    def _make_pack(self) -> Callable[..., bytes]:
        """Return a function of the fields by name, which costs a third of one that sorts them."""
        fields = ", ".join(
            f"{name}={b'' if code.startswith('digest') else 0!r}" for name, code in self.fields
        )
        values = ", ".join(
            f"{name}.to_bytes({_CODES[code][0][:-1]}, 'big', signed={_IS_SIGNED[code]})"
            if code in _IS_SIGNED
            else name
            for name, code in self.fields
        )
        source = f"lambda *, {fields}: pack({values})"
        packer: Callable[..., bytes] = eval(source, {"pack": self.struct.pack})
        packer.__name__ = packer.__qualname__ = f"pack_{self.name}"
        return packer

    def template(self, *places: str, **values: int) -> Template:
        """Return a record of these values, in which those named first are filled in later.

        All are integers of 1, 2, 4 or 8 bytes.
        """
        return Template(self.pack(**values), [self._place(name) for name in places])

    def _place(self, name: str) -> tuple[int, int, bool]:
        """Return where a field lies: offset, width, and whether it has a sign."""
        index = self.names.index(name)
        before = "".join(_CODES[code][0] for _, code in self.fields[:index])
        code = self.fields[index][1]
        return struct.calcsize(f">{before}"), struct.calcsize(f">{_CODES[code][0]}"), code[0] == "i"

    def unpack(self, data: bytes, offset: int = 0) -> Any:
        """Return the record at `offset` as a named tuple of this layout's fields."""
        values = self.struct.unpack_from(data, offset)
        if self._odd:
            numbers = list(values)
            for place, is_signed in self._odd:
                numbers[place] = int.from_bytes(values[place], "big", signed=is_signed)
            return self._tuple._make(numbers)
        return self._tuple._make(values)

    def lua_codec(self) -> str:
        """Return Lua functions `unpack_<name>(data, position)` and `pack_<name>(record)`.

        Of a record with lazy fields, `open_<name>(record)` makes those fields of it too.
        """
        if self.is_lazy:
            return self._lua_lazy_codec()
        return (
            f"local function unpack_{self.name}(data, position)\n"
            f"  {self.lua_unpack('record', 'data, position')}\n"
            "  return record\n"
            "end\n"
            f"local function pack_{self.name}(record)\n"
            f"  return {self.lua_pack(self._fields_of_record())}\n"
            "end\n"
        )

    def lua_unpack(self, target: str, arguments: str, *, is_local: bool = True) -> str:
        """Return a Lua statement that makes `target` the record found at `data[, position]`."""
        names = self.names[: self.eager]
        pairs = [f"{name} = {name}" for name in names]
        rest = ""
        if self.is_lazy:
            rest = ", position_of_rest"
            data = arguments.partition(",")[0]
            pairs.append(f"rest = string.sub({data}, position_of_rest)")
        return (
            f"{f'local {target} ' if is_local else ''}do local {', '.join(names)}{rest} = "
            f'struct.unpack("{self.lua_format(0, self.eager)}", {arguments}) '
            f"{target} = {{{', '.join(pairs)}}} end"
        )

    def lua_pack(self, values: Mapping[str, str]) -> str:
        """Return a Lua expression: the record of these expressions, one a field, packed."""
        in_order = ", ".join(values[name] for name in self.names)
        return f'struct.pack("{self.lua_format()}", {in_order})'

    def _fields_of_record(self) -> dict[str, str]:
        return {name: f"record.{name}" for name in self.names}

    def _lua_lazy_codec(self) -> str:
        eager = ", ".join(f"record.{name}" for name in self.names[: self.eager])
        lazy = ", ".join(f"record.{name}" for name in self.names[self.eager :])
        return (
            f"local function unpack_{self.name}(data)\n"
            f"  {self.lua_unpack('record', 'data')}\n"
            "  return record\n"
            "end\n"
            f"local function open_{self.name}(record)\n"
            "  if record.rest then\n"
            f'    {lazy} = struct.unpack("{self.lua_format(self.eager)}", record.rest)\n'
            "    record.rest = nil\n"
            "  end\n"
            "  return record\n"
            "end\n"
            f"local function pack_{self.name}(record)\n"
            "  if record.rest then\n"
            f'    return struct.pack("{self.lua_format(0, self.eager)}", {eager}) .. record.rest\n'
            "  end\n"
            f"  return {self.lua_pack(self._fields_of_record())}\n"
            "end\n"
        )


#: Running state of an account: field `s` of its hash. Amounts in micros, times as named.
ACCOUNT_STATE = Layout(
    "account_state",
    """layout: i64, version: i64, sequence: i64,
    balance: i64, held: i64, used: i64,
    calls: i64, calls_tollfree: i64, calls_premium: i64, calls_caribbean: i64,
    calls_national: i64, calls_international: i64, calls_satellite: i64, calls_unknown: i64,
    trunks_inbound: i64, trunks_outbound: i64, arrival_us: i64,
    day: i64, day_spend: i64, month: i64, month_spend: i64,
    day_mark: i64, month_mark: i64, trunks_event_at: i64,
    low_at: i64, exhausted_at: i64, burst_event_at: i64,
    recharge_pending: i64, recharge_at: i64, recharge_succeeded_at: i64,
    recharge_failures: i64, recharge_month: i64, recharge_month_amount: i64,
    recharge_number: i64""",
    lazy_from="low_at",
)

#: What the daemon knows of an account, checked against `version`. -1: no limit, NONE: no
#: threshold. With balance − used above `quiet_above` there is no alert to be raised.
LIMITS = Layout(
    "limits",
    """version: i64, day: i32, month: i32, daily_limit: i64, monthly_limit: i64,
    quiet_above: i64, credit_limit: i64, unlimited: u8, per_minute: u8,
    trunks_inbound: i32, trunks_outbound: i32,
    trunks_twoway: i32, trunks_burst: i32,
    calls_max: i32, class_calls_max: i32, arrival_interval_us: i64, arrival_burst_us: i64,
    low_threshold: i64, low_repeat_seconds: i64,
    recharge_mode: u8, recharge_threshold: i64, recharge_amount: i64,
    recharge_interval_seconds: i64, recharge_monthly_cap: i64""",
    lazy_from="low_threshold",
)

#: Beginning of a call record; `legs` times CALL_LEG and an opaque tail follow.
CALL_HEAD = Layout(
    "call_head",
    """layout: u8, state: u8, call_class: u8, direction: u8, legs: u8, final: u8, reported: u8,
    marks: u8, attempt: i64, request: digest8, authorized_us: i64, lease_ms: i64,
    ring_seconds: i32, granted_seconds: i32, used_seconds: i32""",
)

#: One account's part in a call. `room` is what was available to it at the last grant.
CALL_LEG = Layout("call_leg", "billing: u8, held: i64, used: i64, charged: i64, room: i64")

#: Numbers of an authorize. `uncharged_seconds` is granted when no leg limits the call; -1: no end.
#: `hour` is the one that the keys of tombstones go with.
AUTHORIZE = Layout(
    "authorize",
    """attempt: i64, valid_from: i64, valid_until: i64, call_class: u8, direction: u8, legs: u8,
    exempt: u8, dry_run: u8, second_try: u8, steps: u8, final: u8, memory_full: u8,
    marks: u8, used_seconds: i32, uncharged_seconds: i32, ring_seconds: i32,
    grace_seconds: i32, life_seconds: i32, closed_hours: i32, hour: i32""",
)

#: What an authorize asks of one leg besides its holds. `limiting`: its rate is not free;
#: `has_rate` 2: not even its first increment fits into max_call_cost; 3 and 4: an `Excuse`, and
#: then nothing else is asked of the leg.
LEG_REQUEST = Layout(
    "leg_request",
    "has_rate: u8, limiting: u8, needs_credit: u8, trunk_covered: u8, used: i64",
)

#: The width of the attempt, with which the numbers of every script about a call begin.
ATTEMPT_BYTES = 8

#: Numbers of a reserve.
RESERVE = Layout(
    "reserve",
    """attempt: i64, valid_from: i64, valid_until: i64, legs: u8, second_try: u8, steps: u8,
    final: u8, denial: u8, marks: u8, used_seconds: i32, uncharged_seconds: i32,
    grace_seconds: i32, life_seconds: i32""",
)

#: Numbers of a settle, of an orphan's claim and of the booking of an unknown call.
SETTLE = Layout(
    "settle",
    """attempt: i64, valid_from: i64, valid_until: i64, legs: u8, seconds: i32,
    started_at: i64, hour: i32, closed_hours: i32, ring_seconds: i32, policy: u8, used_seconds: i32,
    call_class: u8, direction: u8, force: u8""",
)

#: Numbers of a credit or debit; `amount` names it, the amounts of the legs follow apart.
#: `recharge`: the number of the requested recharge that a credit answers, or 0.
POSTING = Layout(
    "posting",
    """amount: i64, kind: u8, legs: u8, require_available: u8, counts_as_spend: u8,
    valid_from: i64, valid_until: i64, keep_seconds: i64, recharge: i64, per_leg: u8""",
)

#: Beginning of a settled call's tombstone; `legs` times TOMBSTONE_LEG follow.
TOMBSTONE = Layout("tombstone", "layout: u8, legs: u8, seconds: i32")
TOMBSTONE_LEG = Layout("tombstone_leg", "billing: u8, cost: i64")

#: Beginning of a ledger entry; `legs` times LEDGER_LEG and the strings follow. When it was booked
#: is said by its id in the stream; a ledger is mostly what fills the store, so each byte counts.
LEDGER_HEAD = Layout(
    "ledger_head",
    """layout: u8, kind: u8, marks: u8, call_class: u8, direction: u8, legs: u8, seconds: i32,
    sequence: u40, started_at: u40""",
)
LEDGER_LEG = Layout("ledger_leg", "billing: u8, sequence: u40, amount: i56, balance: i56")

#: What is kept of a credit's or debit's reference.
REFERENCE = Layout("reference", "layout: u8, kind: u8, amount: i64, sequence: i64, balance: i64")

#: A requested recharge that waits for its money; field `<account>-<number>` of its bucket's hash.
RECHARGE_REQUEST = Layout(
    "recharge_request",
    "layout: u8, state: u8, amount: i64, requested_at: i64, changed_at: i64",
)

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        ACCOUNT_STATE, LIMITS, CALL_HEAD, CALL_LEG, AUTHORIZE, LEG_REQUEST, RESERVE, SETTLE,
        POSTING, TOMBSTONE, TOMBSTONE_LEG, LEDGER_HEAD, LEDGER_LEG, REFERENCE,
        RECHARGE_REQUEST,
    )
}  # fmt: skip
