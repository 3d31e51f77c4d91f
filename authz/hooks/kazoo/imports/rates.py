"""From Kazoo's rates, as its database or its CSV export has them, to a deck of authz's.

Kazoo keeps any number of rates for a prefix and chooses when a call comes; a deck has one for each
direction. So the choice is made here, by the same rules, and told of.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from msgspec import Struct

from authz.errors import DeckError, InvalidInput
from authz.hooks.kazoo.imports.accounts import Remark
from authz.hooks.kazoo.imports.documents import (
    DOCUMENTS_MAX,
    UNIT_MICROS,
    Document,
    DocumentError,
    Fields,
    decimal_of,
    integer,
    read_documents,
)
from authz.money import MICROS_PER_UNIT, format_amount
from authz.rating.canonical import price_text
from authz.rating.columns import decode
from authz.rating.rows import PRICE_DECIMALS

#: Most remarks that are kept; the rest are counted.
REMARKS_MAX: Final = 100_000
#: The first line of what `RateReading.deck_csv` returns.
HEADER: Final = (
    "prefix", "description", "direction", "price", "connect_fee", "increment", "free_seconds",
    "rounding", "blocked",
)  # fmt: skip

_DIRECTIONS: Final = ("inbound", "outbound")
_PREFIX: Final = re.compile(r"\+?([0-9]{1,20})\Z")
_SECONDS_DEFAULT: Final = 60
_SECONDS_MAX: Final = 86_400
_WEIGHT_DEFAULT: Final = 100
_UNITS_PER_UNIT: Final = 10_000
#: What stands for "any more digits" in a route.
_ANY_DIGITS: Final = r"(?:\.[+*]|\\d[+*]|\\d\{\d+\}|\(\\d[+*]\)|\(\\d\{\d+\}\))"
#: A route that takes every number with its prefix.
_PLAIN_ROUTE: Final = re.compile(
    rf"\^?(?:\\?\+)?\??\(?(?:\\?\+)?\??(?P<prefix>[0-9]+){_ANY_DIGITS}\)?\$?\Z"
)
_MONEY_FIELDS: Final = {
    False: (("rate_cost",), ("rate_surcharge",)),
    True: (
        ("pvt_internal_rate_cost", "internal_rate_cost", "pvt_rate_cost"),
        ("pvt_rate_surcharge", "internal_rate_surcharge"),
    ),
}


class RateOptions(Struct, frozen=True, kw_only=True):
    """Which rates are wanted, and how their costs round.

    `is_internal` takes what the carrier charges instead of what customers pay. `cuts_units` has
    every cost cut to 1/10000, as Kazoo's invoices have it.
    """

    ratedeck_id: str | None = None
    is_internal: bool = False
    cuts_units: bool = False


class RateRow(Struct, frozen=True):
    """One rate of one prefix, in authz's words. Price in nanos per minute, fee in micros."""

    place: str
    prefix: str
    directions: tuple[str, ...]
    weight: int
    description: str
    price_nanos: int
    fee_micros: int
    minimum_seconds: int
    increment_seconds: int
    free_seconds: int

    @property
    def terms(self) -> tuple[int, ...]:
        """What a call costs by it."""
        return (
            self.price_nanos, self.fee_micros, self.minimum_seconds, self.increment_seconds,
            self.free_seconds,
        )  # fmt: skip


class RateReading(Struct, frozen=True):
    """A deck's rows, each with the place it came from, and what there is to remark.

    `blocked` are prefixes whose rate cannot be used, with the place of the reason.
    """

    rows: tuple[tuple[RateRow, str], ...]
    blocked: dict[str, str]
    remarks: tuple[Remark, ...]
    remarks_total: int
    rates: int
    refused: int
    cuts_units: bool

    @property
    def places(self) -> tuple[str, ...]:
        """Where each line of `deck_csv` below its header came from, in their order."""
        return (*(row.place for row, _ in self.rows), *self.blocked.values())

    def deck_csv(self) -> bytes:
        """Return the deck file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADER)
        rounding = "down 4" if self.cuts_units else ""
        for row, direction in self.rows:
            first = row.minimum_seconds or row.increment_seconds
            writer.writerow(
                (
                    row.prefix,
                    row.description,
                    direction,
                    price_text(row.price_nanos),
                    format_amount(row.fee_micros),
                    f"{first}/{row.increment_seconds}",
                    row.free_seconds,
                    rounding,
                    "",
                )
            )
        for prefix in self.blocked:
            writer.writerow((prefix, "", "", "", "", "", "", "", "yes"))
        return text.getvalue().encode()


def read_rates(name: str, data: bytes, options: RateOptions) -> RateReading:
    """Return the rates of a JSON or CSV file.

    Raises InvalidInput or DeckError for what is neither, or has rates of several ratedecks and
    `options` names none.
    """
    is_json = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
    documents = read_documents(name, data) if is_json else _csv_documents(name, data)
    reader = _Reader(options, is_json)
    reader.take_all(documents)
    return reader.finish()


def _csv_documents(name: str, data: bytes) -> Iterator[Document]:
    """Yield the lines of a CSV file as documents without their empty cells."""
    text, _ = decode(data)
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in lines:
            if not any(map(str.strip, cells)):
                continue
            if not header:
                header = [cell.strip().lower() for cell in cells]
                if "prefix" not in header:
                    raise InvalidInput(name, "has no column prefix in its first line")
                continue
            place = f"{name}, line {lines.line_num}"
            if len(cells) > len(header):
                raise InvalidInput(place, "has more cells than the first line")
            pairs = zip(header, cells, strict=False)
            yield Document(place, {key: cell.strip() for key, cell in pairs if cell.strip()})
    except csv.Error as error:
        raise InvalidInput(f"{name}, line {lines.line_num}", f"is no CSV: {error}") from None


class _Reader:
    """One import under way."""

    def __init__(self, options: RateOptions, is_json: bool) -> None:
        self._options = options
        self._is_json = is_json
        self._rows: dict[str, list[RateRow]] = {}
        self._blocked: dict[str, str] = {}
        self._decks: dict[str, str] = {}
        self._remarks: list[Remark] = []
        self._remarks_total = 0
        self._refused = 0
        self._rates = 0

    def take_all(self, documents: Iterable[Document]) -> None:
        """Read every rate that is wanted."""
        for count, document in enumerate(documents, 1):
            if count > DOCUMENTS_MAX:
                raise DeckError(f"{document.place}: there are more than {DOCUMENTS_MAX} rates")
            kind = document.fields.get("pvt_type")
            is_design = str(document.fields.get("_id", "")).startswith("_design/")
            if kind not in (None, "rate") or is_design:
                continue
            deck = str(document.fields.get("ratedeck_id") or "")
            wanted = self._options.ratedeck_id
            if wanted is not None and deck not in ("", wanted):
                continue
            self._decks.setdefault(deck, document.place)
            self._rates += 1
            self._take(document)

    def finish(self) -> RateReading:
        """Choose one rate for each prefix and direction, and return everything."""
        named = [deck for deck in self._decks if deck]
        if len(named) > 1:
            raise DeckError(
                f"the file has rates of several ratedecks ({', '.join(sorted(named)[:5])}): "
                "say which one is wanted"
            )
        rows: list[tuple[RateRow, str]] = []
        for prefix in sorted(self._rows):
            if prefix not in self._blocked:
                rows += self._choose(self._rows[prefix])
        # A choice may have blocked more.
        rows = [one for one in rows if one[0].prefix not in self._blocked]
        return RateReading(
            rows=tuple(rows),
            blocked=dict(sorted(self._blocked.items())),
            remarks=tuple(self._remarks),
            remarks_total=self._remarks_total,
            rates=self._rates,
            refused=self._refused,
            cuts_units=self._options.cuts_units,
        )

    def _take(self, document: Document) -> None:
        place, fields = document
        prefix = ""
        try:
            prefix = _prefix(fields)
            if self._is_json and not fields.get("routes"):
                reason = "is missing: Kazoo never uses this rate, and neither do we"
                self._remark(Remark(place, "", "routes", "", reason))
                return
            row = _row(document, prefix, self._options, self._is_json)
        except DocumentError as error:
            self._refuse(Remark(place, prefix, error.field, error.value[:80], error.reason, True))
            if prefix:
                self._blocked.setdefault(prefix, place)
            return
        for name in ("options", "caller_id_numbers", "account_id"):
            if fields.get(name):
                reason = "is ignored, as Kazoo does unless told otherwise: the prefix decides"
                self._remark(Remark(place, prefix, name, str(fields[name])[:80], reason))
        self._rows.setdefault(prefix, []).append(row)

    def _choose(self, members: Sequence[RateRow]) -> list[tuple[RateRow, str]]:
        """Return the row of each direction, as Kazoo chooses among rates of one prefix."""
        chosen: dict[str, RateRow] = {}
        for direction in _DIRECTIONS:
            rivals = [row for row in members if direction in row.directions]
            if not rivals:
                continue
            best = min(rivals, key=lambda row: row.weight)
            equals = [row for row in rivals if row.weight == best.weight]
            if any(row.terms != best.terms for row in equals):
                self._tell_tie(best, equals)
                return []
            chosen[direction] = best
        for row in members:
            if all(row is not best for best in chosen.values()):
                reason = "another rate of the prefix is before it, by its weight"
                self._remark(Remark(row.place, row.prefix, "weight", str(row.weight), reason))
        found = list(chosen.values())
        if len(found) == 2 and found[0] is found[1]:
            return [(found[0], "")]
        return [(row, direction) for direction, row in chosen.items()]

    def _tell_tie(self, best: RateRow, equals: Sequence[RateRow]) -> None:
        other = next(row for row in equals if row.terms != best.terms)
        reason = f"{best.place} has the same prefix and weight and another price"
        self._refuse(Remark(other.place, best.prefix, "weight", str(best.weight), reason, True))
        self._blocked.setdefault(best.prefix, other.place)

    def _refuse(self, remark: Remark) -> None:
        self._refused += 1
        self._remark(remark)

    def _remark(self, remark: Remark) -> None:
        self._remarks_total += 1
        if len(self._remarks) < REMARKS_MAX:
            self._remarks.append(remark)


def _row(document: Document, prefix: str, options: RateOptions, is_json: bool) -> RateRow:
    """Return a rate in authz's words; raise DocumentError."""
    fields = document.fields
    _check_routes(fields, prefix)
    cost_names, fee_names = _MONEY_FIELDS[options.is_internal]
    price = _dollars(fields, cost_names)
    if price is None:
        raise DocumentError(cost_names[0], None, "is missing")
    fee = _dollars(fields, fee_names) or Decimal(0)
    if options.cuts_units:
        price, fee = _in_units(price), _in_units(fee)
    increment = _seconds(fields, "rate_increment", _SECONDS_DEFAULT) or _SECONDS_DEFAULT
    return RateRow(
        place=document.place,
        prefix=prefix,
        directions=_directions(fields),
        weight=_weight(fields, prefix, is_json),
        description=_description(fields),
        price_nanos=_scaled(cost_names[0], price, 10**PRICE_DECIMALS),
        fee_micros=_scaled(fee_names[0], fee, MICROS_PER_UNIT),
        minimum_seconds=_seconds(fields, "rate_minimum", _SECONDS_DEFAULT),
        increment_seconds=increment,
        free_seconds=_seconds(fields, "rate_nocharge_time", 0),
    )


def _prefix(fields: Fields) -> str:
    value = fields.get("prefix")
    text = str(value).strip() if isinstance(value, int | str) else ""
    match = _PREFIX.match(text)
    if match is None or isinstance(value, bool):
        reason = "is missing" if value is None else "is not the digits of a number"
        raise DocumentError("prefix", value, reason)
    return match[1]


def _dollars(fields: Fields, names: Sequence[str]) -> Decimal | None:
    """Return the first of these fields that is there, at least 0."""
    for name in names:
        value = fields.get(name)
        if value is not None and value != "":
            dollars = decimal_of(name, value)
            if dollars < 0:
                raise DocumentError(name, value, "is negative")
            return dollars
    return None


def _in_units(dollars: Decimal) -> Decimal:
    """Round as Kazoo does before it reckons: to 1/10000."""
    units = (dollars * _UNITS_PER_UNIT).quantize(Decimal(1), ROUND_HALF_UP)
    return units * UNIT_MICROS / MICROS_PER_UNIT


def _scaled(name: str, dollars: Decimal, factor: int) -> int:
    scaled = dollars * factor
    if scaled != scaled.to_integral_value():
        raise DocumentError(name, dollars, f"has more than {len(str(factor)) - 1} decimals")
    return int(scaled)


def _seconds(fields: Fields, name: str, default: int) -> int:
    seconds = integer(fields, name)
    if seconds is None:
        return default
    if not 0 <= seconds <= _SECONDS_MAX:
        raise DocumentError(name, seconds, f"is not from 0 to {_SECONDS_MAX} seconds")
    return seconds


def _directions(fields: Fields) -> tuple[str, ...]:
    value = fields.get("direction")
    if isinstance(value, str):
        value = re.findall(r"[a-z]+", value.lower())
    if value is None or value == []:
        return _DIRECTIONS
    if not isinstance(value, list) or not set(value) <= set(_DIRECTIONS):
        raise DocumentError("direction", value, "is not inbound, outbound or both")
    return tuple(sorted(set(value)))


def _weight(fields: Fields, prefix: str, is_json: bool) -> int:
    weight = integer(fields, "weight")
    if weight is not None:
        return weight
    if is_json:
        return _WEIGHT_DEFAULT
    # Kazoo's import reckons it so for lines without one.
    cost = _dollars(fields, _MONEY_FIELDS[True][0])
    if cost is None:
        cost = _dollars(fields, _MONEY_FIELDS[False][0]) or Decimal(0)
    return max(1, min(10 * len(prefix) - int(cost * 100), 100))


def _description(fields: Fields) -> str:
    for name in ("description", "rate_name", "_id", "id"):
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())[:200]
    return ""


def _check_routes(fields: Fields, prefix: str) -> None:
    """Refuse a rate whose routes leave out numbers of its prefix: a deck has no such thing."""
    routes = fields.get("routes")
    if not routes or isinstance(routes, str):
        return
    if not isinstance(routes, list) or not all(isinstance(route, str) for route in routes):
        raise DocumentError("routes", routes, "is not a list of regular expressions")
    matches = map(_PLAIN_ROUTE.match, routes)
    if not any(match is not None and match["prefix"] == prefix for match in matches):
        reason = f"does not take every number with the prefix {prefix}, as a deck would"
        raise DocumentError("routes", routes[0], reason)
