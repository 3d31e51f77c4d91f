"""What a settings tree consists of: each field with its name, its variable and what it allows.

Everything is read from the annotations of the Structs, so that the meaning of a setting is
written once, beside its field, and the loader, `authz config` and docs/settings.md agree.
"""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from authz.event_types import is_pattern
from authz.validation import check_email

VARIABLE_PREFIX: Final = "AUTHZ_"
_TOKEN_LENGTH_MIN: Final = 16
#: What a dial string may leave to be filled in for each call.
DIAL_STRING_WORDS: Final = frozenset({"number", "digits", "dialled", "account"})
#: A word in braces, but neither the switch's own `${word}` nor its `{name=value}`.
_PLACEHOLDER: Final = re.compile(r"(?<!\$)\{([a-z_]+)\}")


class Setting(NamedTuple):
    """One field of the tree. `type` is what the annotation says, without its metadata."""

    key: str
    section: str
    name: str
    annotation: Any
    type: Any
    meaning: str
    default: Any
    is_secret: bool
    needs_restart: bool
    format: str | None

    @property
    def variable(self) -> str:
        """The environment variable that overrides the setting."""
        return VARIABLE_PREFIX + self.key.upper().replace(".", "__")

    @property
    def is_optional(self) -> bool:
        """Whether the setting may be left without a value."""
        return type(None) in get_args(self.type)

    @property
    def allowed(self) -> str:
        """What may be written, in words."""
        words = FORMATS[self.format].words if self.format else _allowed(self.annotation)
        return f"{words}, or empty for none" if self.is_optional else words

    def value_in(self, tree: Any) -> Any:
        """Return the setting's value in a settings tree."""
        return getattr(getattr(tree, self.section) if self.section else tree, self.name)

    def replaced_in(self, tree: Any, value: Any) -> Any:
        """Return the tree with another value of the setting."""
        if not self.section:
            return msgspec.structs.replace(tree, **{self.name: value})
        section = msgspec.structs.replace(getattr(tree, self.section), **{self.name: value})
        return msgspec.structs.replace(tree, **{self.section: section})

    @property
    def item_type(self) -> Any:
        """The type of the items of a list, or None of another setting."""
        return get_args(self.type)[0] if get_origin(self.type) is tuple else None


def about(
    meaning: str,
    *,
    ge: int | None = None,
    le: int | None = None,
    pattern: str | None = None,
    secret: bool = False,
    restart: bool = False,
    format: str | None = None,
) -> Meta:
    """Describe a field: its meaning, its bounds and how to treat it.

    A secret may be read from a file and is never shown; `restart` says that a reload cannot
    change it; `format` names a row of FORMATS that checks the text.
    """
    bounds: dict[str, Any] = {"ge": ge, "le": le, "pattern": pattern}
    extra = {"secret": secret, "restart": restart, "format": format}
    return Meta(description=meaning, extra=extra, **bounds)


def settings_of(root: type[msgspec.Struct]) -> dict[str, Setting]:
    """Return every field of the tree by key, in the order in which it is declared."""
    found: dict[str, Setting] = {}
    for name, hint, default in _fields(root):
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            for inner_name, inner_hint, inner_default in _fields(hint):
                setting = _setting(name, inner_name, inner_hint, inner_default)
                found[setting.key] = setting
        else:
            setting = _setting("", name, hint, default)
            found[setting.key] = setting
    return found


def sections_of(root: type[msgspec.Struct]) -> dict[str, str]:
    """Return the meaning of every section of the tree by name."""
    return {
        name: (hint.__doc__ or "").strip()
        for name, hint, _ in _fields(root)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct)
    }


def item_fields(struct: type[msgspec.Struct]) -> list[tuple[str, str, bool]]:
    """Return name, meaning and whether it is required, of each field of a list's items."""
    hints = get_type_hints(struct, include_extras=True)
    return [
        (field.encode_name, _meta(hints[field.name]).description or "", field.required)
        for field in msgspec.structs.fields(struct)
    ]


def secret_fields(struct: type[msgspec.Struct]) -> list[str]:
    """Return the names of the fields of a list's items that are never shown."""
    hints = get_type_hints(struct, include_extras=True)
    return [name for name, hint in hints.items() if (_meta(hint).extra or {}).get("secret")]


def _fields(struct: type[msgspec.Struct]) -> list[tuple[str, Any, Any]]:
    hints = get_type_hints(struct, include_extras=True)
    rows = []
    for field in msgspec.structs.fields(struct):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        rows.append((field.name, hints[field.name], default))
    return rows


def _setting(section: str, name: str, annotation: Any, default: Any) -> Setting:
    meta = _meta(annotation)
    extra = meta.extra or {}
    return Setting(
        key=f"{section}.{name}" if section else name,
        section=section,
        name=name,
        annotation=annotation,
        type=get_args(annotation)[0],
        meaning=meta.description or "",
        default=default,
        is_secret=bool(extra.get("secret")),
        needs_restart=bool(extra.get("restart")),
        format=extra.get("format"),
    )


def _meta(annotation: Any) -> Meta:
    for item in getattr(annotation, "__metadata__", ()):
        if isinstance(item, Meta):
            return item
    raise TypeError(f"{annotation} lacks its meaning")


def _allowed(annotation: Any) -> str:
    """Put the type and the bounds of an annotation into words."""
    base = get_args(annotation)[0]
    kinds = [kind for kind in get_args(base) if kind is not type(None)]
    if get_origin(base) is Literal:
        return "one of " + ", ".join(map(str, get_args(base)))
    if get_origin(base) is tuple:
        item = get_args(base)[0]
        is_table = isinstance(item, type) and issubclass(item, msgspec.Struct)
        return "a list of tables" if is_table else "a list of texts"
    if base is bool:
        return "true or false"
    if base is Path or Path in kinds:
        return "a path"
    meta = _meta(annotation)
    if base is int:
        return f"a whole number from {meta.ge} to {meta.le}"
    return "a text"


def _check_event(pattern: str) -> None:
    if not is_pattern(pattern):
        raise ValueError("it is neither an event nor a pattern such as balance.*")


class Format(NamedTuple):
    """A kind of text. `check` raises ValueError, with what is wrong, unless it fits."""

    words: str
    check: Callable[[str], object]


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`; ValueError says what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError("it has no port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address is written in brackets")
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("the port is not a number up to 65535")
    return host, int(port)


def _check_store_url(url: str) -> None:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("redis", "rediss", "unix") or not rest:
        raise ValueError("it does not start with redis://, rediss:// or unix://")


def _check_archive_url(url: str) -> None:
    scheme, separator, rest = url.partition("://")
    schemes = ("sqlite", "sqlite+aiosqlite", "postgresql", "postgresql+asyncpg")
    if not separator or scheme not in schemes or not rest:
        raise ValueError("it does not start with sqlite:/// or postgresql://")


def _check_token(token: str) -> None:
    if len(token) < _TOKEN_LENGTH_MIN:
        raise ValueError(f"it is shorter than {_TOKEN_LENGTH_MIN} characters")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("it has blanks or characters outside ASCII")


def _check_timezone(name: str) -> None:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, OSError) as error:
        raise ValueError("no such time zone") from error


def _check_currency(text: str) -> None:
    if len(text) != 3 or not (text.isascii() and text.isalpha() and text.isupper()):
        raise ValueError("it is not three capital letters")


def _check_dial_string(text: str) -> None:
    if not text.isascii() or not text.isprintable() or not text.strip():
        raise ValueError("it is empty or has characters outside ASCII")
    unknown = set(_PLACEHOLDER.findall(text)) - DIAL_STRING_WORDS
    if unknown:
        raise ValueError(f"it has an unknown {{{min(unknown)}}}")


def _check_file_mode(text: str) -> None:
    if not 0 <= int(text, 8) <= 0o777:
        raise ValueError("it is not between 0 and 0777")


def _check_dialled(text: str) -> None:
    if not text or set(text) - set("0123456789*#"):
        raise ValueError("it has other characters than digits, * and #")


#: A file or a tone, as a switch's `playback` takes it: no blank, nothing that it would expand.
MEDIA_PATTERN: Final = r"^[^\s'^$\\`{}|\x00-\x20]{1,255}$(?!\n)"


def _check_media(text: str) -> None:
    if not re.search(MEDIA_PATTERN, text):
        raise ValueError("it has a blank, a quote, or a character that a switch would expand")


FORMATS: Final[dict[str, Format]] = {
    "address": Format("an address and port such as 127.0.0.1:8700 or [::1]:8700", split_address),
    "network": Format(
        "a list of addresses and networks such as 10.0.0.5, 10.1.0.0/16", ipaddress.ip_network
    ),
    "store_url": Format("a redis://, rediss:// or unix:// URL", _check_store_url),
    "archive_url": Format("a sqlite:/// or postgresql:// URL", _check_archive_url),
    "token": Format(f"at least {_TOKEN_LENGTH_MIN} ASCII characters without blanks", _check_token),
    "timezone": Format("an IANA time zone such as America/New_York", _check_timezone),
    "currency": Format("three capital letters such as USD", _check_currency),
    "media": Format("the path of a file, or a tone_stream://… without blanks", _check_media),
    "file_mode": Format("an octal file mode such as 0660", _check_file_mode),
    "dial_string": Format(
        "a dial string with {number}, {digits}, {dialled} or {account}", _check_dial_string
    ),
    "email": Format("an e-mail address such as ops@example.net", check_email),
    "event": Format("a list of events, or patterns such as balance.*", _check_event),
    "dialled": Format("a list of digits, * and #, such as 112, 911", _check_dialled),
}
