"""What one cell of a deck file says. Each reader raises CellError with a reason for people.

Money is read from its digits into integers; nothing here passes through a float.
"""

from __future__ import annotations

import datetime
import re

from authz.rating.rows import MONEY_DECIMALS, PRICE_DECIMALS, RoundingMode, TimeWindow
from authz_ext.prefixes import PREFIX_LENGTH_MAX
from authz_ext.rating import Tier

#: Most prefixes that one cell may stand for.
PREFIXES_PER_CELL_MAX = 10_000
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ALL_DAYS = 0b1111111
DAY_MINUTES = 1_440

_SCIENTIFIC = re.compile(r"[0-9]+(?:[.,][0-9]*)?[eE][+-]?[0-9]+\Z")
_DECIMAL = re.compile(r"(?P<whole>[0-9]{0,16})(?:[.,](?P<decimals>[0-9]{0,32}))?\Z")
_PREFIX = re.compile(r"[0-9*#]+\Z")
_SECONDS = re.compile(r"(?P<seconds>[0-9]{1,7})\s*(?:s|sec|secs|seconds)?\Z", re.IGNORECASE)
#: Currencies that a sign in a price cell may stand for.
_SIGNS = {
    "$": frozenset({"USD", "CAD", "AUD", "NZD", "SGD", "HKD", "MXN", "BRL", "CLP", "COP", "ARS"}),
    "€": frozenset({"EUR"}),
    "£": frozenset({"GBP", "GIP", "EGP"}),
}


class CellError(ValueError):
    """A cell that cannot be used; the text says why."""


def read_scaled(text: str, decimals_max: int, what: str = "price") -> int:
    """Return a decimal such as `0.05` or `0,05` times 10 ** `decimals_max`, exactly."""
    match = _DECIMAL.match(text)
    if match is None or not (match["whole"] or match["decimals"]):
        raise CellError(_why_no_decimal(text, what))
    decimals = (match["decimals"] or "").rstrip("0")
    if len(decimals) > decimals_max:
        raise CellError(f"{what} {text!r} has more than {decimals_max} decimals")
    return int((match["whole"] or "0") + decimals.ljust(decimals_max, "0"))


def _why_no_decimal(text: str, what: str) -> str:
    if not text:
        return f"the {what} is empty"
    if _SCIENTIFIC.match(text):
        return f"{what} {text!r} is in a spreadsheet's scientific notation: digits may be lost"
    if text.startswith("-"):
        return f"{what} {text!r} is negative"
    if "," in text and "." in text:
        return f"{what} {text!r} has both a comma and a point: leave thousands ungrouped"
    return f"{what} {text!r} is not a decimal number"


def read_money(text: str, decimals_max: int, currency: str, what: str) -> int:
    """Return a decimal that may carry the sign or code of the deck's currency."""
    bare = text.removeprefix(currency).removesuffix(currency).strip()
    if bare[:1] in _SIGNS or bare[-1:] in _SIGNS:
        sign = bare[0] if bare[0] in _SIGNS else bare[-1]
        if currency not in _SIGNS[sign]:
            raise CellError(f"{what} {text!r} is not in the deck's currency, {currency}")
        bare = bare.removeprefix(sign).removesuffix(sign).strip()
    return read_scaled(bare, decimals_max, what)


def read_price(text: str, currency: str) -> int:
    """Return the nanos of a per-minute price."""
    return read_money(text, PRICE_DECIMALS, currency, "price")


def read_prefixes(text: str) -> tuple[str, ...]:
    """Return the prefixes of a cell, in its order.

    Understands `+44`, `44 20`, lists (`4420, 4421`), lists behind a common head (`61 38,39` is
    6138 and 6139) and ranges of equal length (`4475-4477`). What could be read in two ways is
    refused.
    """
    if text.isdecimal() and text.isascii() and not text.startswith("00"):
        return (_checked_prefix(text),)
    if _SCIENTIFIC.match(text):
        raise CellError(
            f"prefix {text} was damaged by a spreadsheet (scientific notation): its digits are lost"
        )
    bare = _without_spreadsheet_quotes(text)
    if not bare:
        raise CellError("the prefix is empty")
    common = ""
    prefixes: list[str] = []
    for number, item in enumerate(re.split(r"[,;]", bare)):
        words = item.strip().removeprefix("+").split()
        if not words:
            raise CellError(f"prefix {text!r} has an empty item")
        if number == 0 and len(words) > 1 and re.search(r"[-,;]", bare):
            common = words.pop(0)
        if common and (number > 0 or "-" in item):
            _check_item_after_head(text, common, words)
        _check_spaces(text, words)
        prefixes += _expand(common, "".join(words), text)
        if len(prefixes) > PREFIXES_PER_CELL_MAX:
            raise CellError(f"prefix {text!r} stands for more than {PREFIXES_PER_CELL_MAX}")
    return tuple(prefixes)


def _without_spreadsheet_quotes(text: str) -> str:
    """Return `="0044"` and `'0044`, by which spreadsheets are told to keep text, as 0044."""
    if text.startswith('="') and text.endswith('"') and len(text) > 3:
        return text[2:-1].strip()
    return text.removeprefix("'").strip()


def _check_item_after_head(text: str, head: str, words: list[str]) -> None:
    if len(words) > 1 or words[0].startswith(head):
        raise CellError(
            f"prefix {text!r} is ambiguous: whether {' '.join(words)} follows {head} is unclear"
        )


def _check_spaces(text: str, words: list[str]) -> None:
    """Refuse `4420 4421`, where the space may stand between two prefixes."""
    first = words[0]
    for word in words[1:]:
        if len(word) == len(first) >= 4 and word[:2] == first[:2]:
            raise CellError(f"prefix {text!r} is ambiguous: separate several by commas")


def _expand(head: str, item: str, text: str) -> list[str]:
    """Return the prefixes of one item: itself, or all of a range."""
    first, dash, last = item.partition("-")
    if not dash:
        return [_checked_prefix(head + item)]
    if not (first.isdecimal() and last.isdecimal() and item.isascii()):
        raise CellError(f"prefix {text!r} is not a range of digits")
    if len(first) != len(last) or last < first:
        raise CellError(f"prefix {text!r} is no clear range: write both ends in full and ascending")
    count = int(last) - int(first) + 1
    if count > PREFIXES_PER_CELL_MAX:
        raise CellError(f"prefix {text!r} stands for more than {PREFIXES_PER_CELL_MAX}")
    _checked_prefix(head + last)
    return [
        _checked_prefix(f"{head}{number:0{len(first)}d}")
        for number in range(int(first), int(last) + 1)
    ]


def _checked_prefix(prefix: str) -> str:
    if not _PREFIX.match(prefix):
        reason = "a decimal point" if re.search(r"[0-9]\.[0-9]", prefix) else "no prefix's symbols"
        raise CellError(f"prefix {prefix[:60]!r} has {reason}; only 0-9, * and # can be dialled")
    if len(prefix) > PREFIX_LENGTH_MAX:
        raise CellError(f"prefix {prefix[:60]!r} is longer than {PREFIX_LENGTH_MAX} symbols")
    if prefix.startswith("00"):
        raise CellError(
            f"prefix {prefix!r} begins with 00, which no number does: leave the access code out"
        )
    return prefix


def read_seconds(text: str, what: str) -> int:
    """Return a whole number of seconds such as `60` or `60 sec`."""
    match = _SECONDS.match(text)
    if match is None:
        raise CellError(f"{what} {text!r} is not a whole number of seconds")
    return int(match["seconds"])


def read_increment(text: str) -> tuple[int, int]:
    """Return (first, following) seconds of `30/6`; `6` is 6/6."""
    first, slash, following = text.partition("/")
    seconds = read_seconds(first.strip(), "increment")
    return seconds, read_seconds(following.strip(), "increment") if slash else seconds


def read_tiers(text: str, currency: str) -> tuple[Tier, ...]:
    """Return the tiers of `0:0.20/60/60 60:0.10/60/1` (second : price / seconds / increment)."""
    tiers = []
    for word in text.split():
        second, colon, rest = word.partition(":")
        parts = rest.split("/")
        if not colon or len(parts) != 3:
            raise CellError(f"tier {word!r} is not like 0:0.20/60/60")
        try:
            tier = Tier(
                read_seconds(second, "tier's second"),
                read_price(parts[0], currency),
                read_seconds(parts[1], "tier's per"),
                read_seconds(parts[2], "tier's increment"),
            )
        except ValueError as error:
            raise CellError(f"tier {word!r}: {error}") from None
        tiers.append(tier)
    return tuple(tiers)


def read_rounding(text: str) -> tuple[RoundingMode, int]:
    """Return (mode, decimals) of `half_up 6`."""
    mode, _, decimals = text.partition(" ")
    for known in ("up", "half_up", "down"):
        if mode == known and len(decimals) == 1 and decimals in "0123456":
            return known, int(decimals)
    raise CellError(f"rounding {text!r} is not up, half_up or down and 0 to {MONEY_DECIMALS}")


def read_window(text: str) -> TimeWindow:
    """Return the window of `mon-fri 08:00-18:00`, `sat,sun` or `22:00-06:00`."""
    words = text.lower().split()
    days, start, end = ALL_DAYS, 0, DAY_MINUTES
    if words and words[0][:3] in DAYS:
        days = _read_days(words.pop(0), text)
    if words:
        match = re.fullmatch(r"(\d\d?):([0-5]\d)-(\d\d?):([0-5]\d)", words.pop(0), re.ASCII)
        if match is None or words:
            raise CellError(f"window {text!r} is not like mon-fri 08:00-18:00")
        start = int(match[1]) * 60 + int(match[2])
        end = int(match[3]) * 60 + int(match[4]) or DAY_MINUTES
    if start >= DAY_MINUTES or end > DAY_MINUTES or start == end:
        raise CellError(f"window {text!r} must start before 24:00 and end at another minute")
    return TimeWindow(days, start, end)


def _read_days(text: str, window: str) -> int:
    days = 0
    for item in text.split(","):
        first, dash, last = item.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise CellError(f"window {window!r}: {item!r} is not like mon or mon-fri")
        day, stop = DAYS.index(first), DAYS.index(last or first)
        days |= 1 << day
        while day != stop:
            day = (day + 1) % 7
            days |= 1 << day
    return days


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(
    r"""(?: (?P<year>[0-9]{4}) (?P<mark>[-/.]?) (?P<month>[0-9]{1,2}) (?P=mark) (?P<day>[0-9]{1,2})
        | (?P<one>[0-9]{1,2}) [-/.] (?P<two>[0-9]{1,2}) [-/.] (?P<year_last>[0-9]{4})
        | (?P<day_named>[0-9]{1,2}) [-\s/.]* (?P<name>[A-Za-z]{3,9}) [-\s/.,]* (?P<year_of>[0-9]{4})
        | (?P<name_first>[A-Za-z]{3,9}) \.? \s* (?P<day_second>[0-9]{1,2}) ,? \s+
          (?P<year_third>[0-9]{4})
        )
        (?: [T\s]+ (?P<hour>[0-9]{1,2}) : (?P<minute>[0-9]{2}) (?: : (?P<second>[0-9]{2}) )?
            (?: \.0+ )? \s* (?P<half>[AaPp][Mm])? )?
        \Z""",
    re.VERBOSE,
)


def read_date(text: str) -> str:
    """Return a date, or a date and time, as ISO text without the time when it is midnight.

    Reads ISO, `31.12.2026`, `12/31/2026`, `31-Dec-2026` and the like. Where day and month could
    be exchanged (`01/02/2026`) the date is refused: a deck a month early costs money.
    """
    match = _DATE.match(text)
    if match is None:
        raise CellError(f"date {text!r} is not understood: write it as 2026-12-31")
    if match["one"]:
        year, month, day = _unambiguous(match, text)
    elif match["year"]:
        year, month, day = int(match["year"]), int(match["month"]), int(match["day"])
    else:
        name = (match["name"] or match["name_first"]).lower()
        if name[:3] not in _MONTHS:
            raise CellError(f"date {text!r} names no month that is known")
        month = _MONTHS.index(name[:3]) + 1
        day = int(match["day_named"] or match["day_second"])
        year = int(match["year_of"] or match["year_third"])
    try:
        moment = datetime.datetime(year, month, day, *_clock(match))  # noqa: DTZ001  # deck's zone
    except ValueError as error:
        raise CellError(f"date {text!r} does not exist: {error}") from None
    if moment.time() == datetime.time():
        return moment.date().isoformat()
    return moment.isoformat(timespec="seconds")


def _unambiguous(match: re.Match[str], text: str) -> tuple[int, int, int]:
    one, two, year = int(match["one"]), int(match["two"]), int(match["year_last"])
    if one <= 12 and two <= 12 and one != two:
        raise CellError(f"date {text!r} is ambiguous (which is the month?): write it as 2026-12-31")
    return (year, two, one) if one > 12 else (year, one, two)


def _clock(match: re.Match[str]) -> tuple[int, int, int]:
    hour = int(match["hour"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(f"hour {hour} has no AM or PM")
        hour = hour % 12 + (12 if match["half"].lower() == "pm" else 0)
    return hour, int(match["minute"] or 0), int(match["second"] or 0)


def read_flag(text: str) -> bool:
    """Return what a yes-or-no cell says."""
    word = text.lower()
    if word in {"yes", "y", "true", "1", "x", "blocked"}:
        return True
    if word in {"", "no", "n", "false", "0"}:
        return False
    raise CellError(f"{text!r} is neither yes nor no")


def says_blocked(text: str) -> bool:
    """Say whether a price cell reads `Blocked` instead of a price."""
    return text.lower() in {"blocked", "block", "barred"}
