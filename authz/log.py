"""Events for operators: one line each on standard error, as JSON or as readable text.

An event has a snake_case name and its facts as fields, never a sentence with values in it:
`log.event("call_denied", account="acme", call_id="c1", reason="no_rate")`. Secrets are never
written and dialled numbers are masked, whoever calls. Below it is the standard library's
logging, so that records of other packages come out in the same form.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TextIO

import msgspec

from authz.errors import AuthzError

LOGGER: Final = logging.getLogger("authz")

#: What turns moment, level, process, event name and facts into a line.
_Renderer = Callable[[datetime.datetime, str, str, str, Mapping[str, Any]], str]

LevelName = Literal["debug", "info", "warning", "error"]
FormatName = Literal["auto", "json", "text"]

_LEVELS: Final[dict[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
#: Fields that hold what a caller dialled or was reached at.
_NUMBER_FIELDS: Final = frozenset({"to", "from", "number", "rate_number", "dialled", "caller"})
_SECRET_FIELDS: Final = frozenset({"token", "password", "secret", "authorization"})
_URL_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s]*@")
#: Shorter strings are service codes (911, *72), which identify nobody.
_MASKED_LENGTH_MIN: Final = 7
_MASKED_DIGITS: Final = 4
#: A value may be whatever a peer has sent; who reads lines expects them to end.
_TEXT_LENGTH_MAX: Final = 2_000
_TRACEBACK_LENGTH_MAX: Final = 16_000


def event(
    name: str,
    /,
    *,
    level: LevelName = "info",
    error: BaseException | None = None,
    **fields: Any,
) -> None:
    """Write one event. `error` adds its type and text, and its traceback if it is unexpected."""
    number = _LEVELS[level]
    if not LOGGER.isEnabledFor(number):
        return
    if error is not None:
        fields["error"] = f"{type(error).__name__}: {error}"
    # What we raise on purpose explains itself; of anything else the place matters.
    is_expected = isinstance(error, AuthzError | OSError)
    traced = None if is_expected and not LOGGER.isEnabledFor(logging.DEBUG) else error
    LOGGER.log(number, "%s", name, exc_info=traced, extra={"event": name, "fields": fields})


def mask_number(number: str) -> str:
    """Return the number with its last four digits hidden; service codes stay as they are."""
    if len(number) < _MASKED_LENGTH_MIN:
        return number
    return number[:-_MASKED_DIGITS] + "*" * _MASKED_DIGITS


def mask_url(url: str) -> str:
    """Return the URL without its user and password."""
    return _URL_PASSWORD.sub("***@", url)


def configure(
    *,
    level: LevelName,
    format: FormatName,
    mask_numbers: bool,
    process: str,
    stream: TextIO | None = None,
) -> None:
    """Send the events of this process to `stream` (standard error); may be called again.

    `process` names the process in each line. The format `auto` is text on a terminal.
    """
    output = sys.stderr if stream is None else stream
    as_text = format == "text" or (format == "auto" and output.isatty())
    handler = logging.StreamHandler(output)
    renderer = _render_text if as_text else _render_json
    handler.setFormatter(_EventFormatter(renderer, process=process, mask_numbers=mask_numbers))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Other packages' chatter is theirs; what they warn of concerns the operator.
    root.setLevel(logging.WARNING)
    LOGGER.setLevel(_LEVELS[level])
    logging.captureWarnings(True)


class _EventFormatter(logging.Formatter):
    """Turns a record into one line: an event as it is, another package's record as `log`."""

    def __init__(self, renderer: _Renderer, *, process: str, mask_numbers: bool) -> None:
        super().__init__()
        self._renderer = renderer
        self._process = process
        self._mask_numbers = mask_numbers

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without its end."""
        name = getattr(record, "event", None)
        if name is None:
            name = "log"
            fields = {"logger": record.name, "message": record.getMessage()}
        else:
            fields = getattr(record, "fields", {})
        facts = {key: self._safe(key, value) for key, value in fields.items()}
        if record.exc_info:
            facts["traceback"] = _cut(self.formatException(record.exc_info), _TRACEBACK_LENGTH_MAX)
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        return self._renderer(moment, record.levelname.lower(), self._process, name, facts)

    def _safe(self, key: str, value: Any) -> Any:
        if key in _SECRET_FIELDS:
            return "***"
        if isinstance(value, BaseException):
            value = str(value)
        if isinstance(value, str):
            if self._mask_numbers and key in _NUMBER_FIELDS:
                return _cut(mask_number(value), _TEXT_LENGTH_MAX)
            return _cut(mask_url(value) if "://" in value else value, _TEXT_LENGTH_MAX)
        return value


def _cut(text: str, length_max: int) -> str:
    """Return a text with at most so many characters of its beginning, and how many it had."""
    if len(text) <= length_max:
        return text
    return f"{text[:length_max]}… ({len(text)} characters)"


def _render_json(
    moment: datetime.datetime, level: str, process: str, name: str, facts: Mapping[str, Any]
) -> str:
    record = {
        "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": level,
        "event": name,
        "process": process,
        "process_id": os.getpid(),
        **facts,
    }
    return msgspec.json.encode(record, enc_hook=str).decode()


def _render_text(
    moment: datetime.datetime, level: str, process: str, name: str, facts: Mapping[str, Any]
) -> str:
    clock = moment.astimezone().strftime("%H:%M:%S.%f")[:-3]
    traceback = facts.get("traceback")
    words = " ".join(
        f"{key}={_text_value(value)}" for key, value in facts.items() if key != "traceback"
    )
    line = f"{clock} {level:<7} {process:<10} {name} {words}".rstrip()
    return line if traceback is None else f"{line}\n{traceback}"


def _text_value(value: Any) -> str:
    text = str(value)
    plain = bool(text) and text.isprintable() and " " not in text
    return text if plain else repr(text)
