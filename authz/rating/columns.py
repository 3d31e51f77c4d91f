"""Which column of a carrier's file means what: text encoding, delimiter, header, synonyms."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from msgspec import Struct

from authz.errors import DeckError
from authz.rating.rows import FILE_BYTES_MAX

#: The header is looked for in this many first lines; carriers put titles above it.
HEADER_LINES_MAX = 30
#: Most columns of a file.
COLUMNS_MAX = 200
DELIMITERS = (",", ";", "\t")

#: Headings by what they mean, without spaces and signs. Of several columns with one meaning
#: the first synonym wins where `_SEVERAL` allows it; elsewhere they are an error.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "prefix": (
        "prefix", "prefixes", "dialprefix", "dialcode", "dialcodes", "dialingcode",
        "diallingcode", "dialledprefix", "dialedprefix", "destinationcode", "destinationprefix",
        "breakout", "breakouts", "areacode", "areacodes", "citycode", "code", "codes", "digits",
    ),
    "country_code": ("countrycode", "cc"),
    "description": (
        "description", "destination", "destinationname", "codename", "destinationdescription",
        "areaname", "zone", "zonename", "routename", "route", "location", "name", "country",
        "countryname", "region",
    ),
    "direction": ("direction",),
    "class": ("class", "callclass"),
    "price": (
        "price", "rate", "cost", "perminute", "priceperminute", "rateperminute",
        "costperminute", "priceminute", "rateminute", "pricemin", "ratemin", "permin",
        "pricepermin", "ratepermin", "costpermin", "newrate", "newprice",
        "sellrate", "sellprice", "currentrate",
    ),
    "initial_price": (
        "initialrate", "initialprice", "initialcost", "initialrateperminute",
        "initialpriceperminute", "firstminute", "firstminuterate",
        "firstminuteprice", "firstrate", "firstprice", "initialminute",
    ),
    "next_price": (
        "incrementrate", "incrementprice", "incrementrateperminute", "incrementpriceperminute",
        "incrementalrate", "subsequentrate", "subsequentprice", "subsequentrateperminute",
        "additionalrate", "additionalminute", "additionalminuterate", "followingminute",
        "followingminuterate", "followingminuteprice", "followingrate", "nextrate", "nextprice",
        "nextminute", "recurringrate",
    ),
    "connect_fee": (
        "connectfee", "connectionfee", "connect", "connectcost", "connectcharge",
        "connectioncharge", "connectioncost", "setup", "setupfee", "setupcost", "setupcharge",
        "sf",
    ),
    "increment": (
        "increment", "increments", "billingincrement", "billingincrements", "billing",
        "rateincrement", "interval", "billinginterval", "pulse",
    ),
    "initial_increment": (
        "initialincrement", "firstincrement", "initialinterval", "firstinterval",
        "initialperiod", "minimumtime", "minimumduration", "minimum", "minduration", "mintime",
        "initblock", "initialblock", "minimalduration",
    ),
    "next_increment": (
        "nextincrement", "nextinterval", "subsequentincrement", "subsequentinterval",
        "additionalincrement", "followingincrement", "recurringincrement", "recurringinterval",
        "nextperiod", "billingblock", "subsequentblock",
    ),
    "free_seconds": ("freeseconds", "gracetime", "graceperiod", "graceseconds"),
    "tiers": ("tiers",),
    "window": ("window", "timewindow"),
    "rounding": ("rounding",),
    "max_cost": ("maxcost", "maximumcost"),
    "max_cost_action": ("maxcostaction",),
    "effective": (
        "effective", "effectivedate", "effectivefrom", "effectivestartdate", "startdate",
        "validfrom", "activationdate", "dateeffective", "ratestartdate",
    ),
    "expires": (
        "expires", "expiry", "expirydate", "expirationdate", "enddate", "effectiveenddate",
        "validto", "validuntil", "rateenddate", "effectiveto",
    ),
    "blocked": ("blocked", "barred"),
    "currency": ("currency", "currencycode"),
}  # fmt: skip

#: Headings under which the prefix lacks its country code if that has a column of its own.
_RELATIVE = frozenset({"areacode", "areacodes", "citycode"})
_MEANINGS = {word: meaning for meaning, words in SYNONYMS.items() for word in words}
#: Meanings that a file may spread over several columns: the best synonym is used.
_SEVERAL = frozenset({"description"})
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


class Table(Struct, frozen=True):
    """A deck file as text, with the meaning of its columns."""

    text: str
    encoding: str
    delimiter: str
    header: tuple[str, ...]
    header_line: int
    #: Column index by meaning, a key of SYNONYMS.
    columns: dict[str, int]
    #: Line numbers above the header that hold something.
    preamble: tuple[int, ...]

    @property
    def ignored(self) -> tuple[int, ...]:
        """Indexes of the columns that mean nothing to authz."""
        used = set(self.columns.values())
        return tuple(index for index, name in enumerate(self.header) if name and index not in used)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (line number, cells) of every line below the header that is not blank.

        Raises DeckError where the file stops being CSV, naming the line.
        """
        for line, cells in _read_csv(self.text, self.delimiter):
            if line > self.header_line and any(map(str.strip, cells)):
                yield line, cells


def decode(data: bytes) -> tuple[str, str]:
    """Return (text, encoding) of a file: by its byte order mark, else UTF-8, else Latin-1.

    Raises DeckError for what is no text.
    """
    if len(data) > FILE_BYTES_MAX:
        raise DeckError(f"the file has {len(data)} bytes; at most {FILE_BYTES_MAX} are read")
    if data[:4] == b"PK\x03\x04" or data[:4] == b"\xd0\xcf\x11\xe0":
        raise DeckError("this is a spreadsheet, not a CSV file: export it as CSV (UTF-8)")
    encoding = next(
        (name for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8"
    )
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise DeckError(f"the file is not the {encoding} it says it is: {error}") from None
        encoding = "latin-1"
        text = data.decode(encoding)
    if "\0" in text:
        raise DeckError("the file holds null bytes: it is no CSV text")
    return text, encoding


def find_table(data: bytes, currency: str) -> Table:
    """Return the table of a deck file, its delimiter and header found by what they make sense of.

    Raises DeckError, naming the headings seen, when no line is a header with a prefix and a
    price column.
    """
    text, encoding = decode(data)
    best: Table | None = None
    for delimiter in DELIMITERS:
        found = _find_header(text, encoding, delimiter, currency)
        if found is not None and (best is None or len(found.columns) > len(best.columns)):
            best = found
    if best is None:
        raise DeckError(_why_no_header(text))
    return best


def _find_header(text: str, encoding: str, delimiter: str, currency: str) -> Table | None:
    preamble: list[int] = []
    for line, cells in _read_csv(text, delimiter):
        if line > HEADER_LINES_MAX:
            return None
        header = tuple(cell.strip() for cell in cells)
        meanings = [_meaning(name, currency) for name in header]
        if _is_header(set(meanings)):
            if len(header) > COLUMNS_MAX:
                raise DeckError(f"line {line}: more than {COLUMNS_MAX} columns")
            columns = _choose_columns(header, meanings, line)
            return Table(text, encoding, delimiter, header, line, columns, tuple(preamble))
        if any(header):
            preamble.append(line)
    return None


def _read_csv(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, cells) of every record."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise DeckError(
            f"line {line}: not readable as CSV, is a quote missing? ({error})"
        ) from None


def _meaning(heading: str, currency: str) -> str | None:
    """Return what a heading means; the deck's own currency in it is passed over."""
    return _MEANINGS.get(_squash(heading, currency))


def _squash(heading: str, currency: str = "") -> str:
    words = re.findall(r"[a-z0-9]+", heading.casefold())
    return "".join(word for word in words if word != currency.casefold())


def _is_header(meanings: set[str | None]) -> bool:
    return bool(meanings & {"prefix", "country_code"}) and bool(
        meanings & {"price", "initial_price", "next_price", "tiers", "blocked"}
    )


def _choose_columns(
    header: tuple[str, ...], meanings: list[str | None], line: int
) -> dict[str, int]:
    columns: dict[str, int] = {}
    for index, meaning in enumerate(meanings):
        if meaning is None:
            continue
        taken = columns.setdefault(meaning, index)
        if taken == index:
            continue
        if meaning not in _SEVERAL:
            raise DeckError(
                f"line {line}: both {header[taken]!r} and {header[index]!r} are {meaning} columns"
            )
        order = SYNONYMS[meaning]
        columns[meaning] = min(taken, index, key=lambda one: _rank(order, header[one]))
    country_code = columns.pop("country_code", None)
    if "prefix" not in columns and country_code is not None:
        columns["prefix"] = country_code
    elif country_code is not None and _squash(header[columns["prefix"]]) in _RELATIVE:
        raise DeckError(
            f"line {line}: join {header[country_code]!r} and {header[columns['prefix']]!r} into "
            "one prefix column; whether one contains the other is unclear"
        )
    _check_prices(columns, header, line)
    return columns


def _rank(order: tuple[str, ...], heading: str) -> int:
    squashed = _squash(heading)
    return order.index(squashed) if squashed in order else len(order)


def _check_prices(columns: dict[str, int], header: tuple[str, ...], line: int) -> None:
    """One price column, or first and following prices: never a mixture."""
    first, following = columns.get("initial_price"), columns.get("next_price")
    if "price" in columns and first is not None and following is None:
        raise DeckError(
            f"line {line}: {header[first]!r} stands beside {header[columns['price']]!r}; "
            "name the price of the other increments 'increment rate'"
        )
    if "price" in columns and following is not None:
        if first is not None:
            raise DeckError(f"line {line}: a price column stands beside two increment prices")
        columns["initial_price"] = columns.pop("price")
    if "price" not in columns and (first is None) != (following is None) and "tiers" not in columns:
        columns["price"] = columns.pop("initial_price" if first is not None else "next_price")


def _why_no_header(text: str) -> str:
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        return "the file is empty"
    return (
        f"none of the first {HEADER_LINES_MAX} lines is a header with a prefix and a price "
        f"column; the file begins {first[:120]!r}"
    )
