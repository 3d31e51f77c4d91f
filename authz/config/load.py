"""Reading settings: the file, then the environment over it, then the command line over both.

An error names the setting as the operator wrote it, its value unless it is a secret, what is
allowed, and the nearest known name of one that does not exist.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from authz.config.fields import FORMATS, VARIABLE_PREFIX, Setting
from authz.errors import ConfigError

_SECRET_BYTES_MAX: Final = 65_536
#: Variables with our prefix that are no settings: of the CLI, the build and the tests.
_OTHER_VARIABLES: Final = frozenset({"AUTHZ_CONFIG", "AUTHZ_DEBUG", "AUTHZ_TEST_SEED"})
#: What Kubernetes and Docker links inject for a service that is called authz or authz-….
_INJECTED_VARIABLE: Final = re.compile(
    r"AUTHZ_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


class Written(NamedTuple):
    """A value as it was written. `origin` says where, for the operator."""

    value: Any
    origin: str


class Loaded(NamedTuple):
    """Converted values by key, of those settings that are written anywhere, and their origins."""

    values: dict[str, Any]
    origins: dict[str, str]


def load(
    settings: Mapping[str, Setting],
    config_path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Written],
    convert_path: Callable[[type, Any], Any],
) -> Loaded:
    """Read, check and convert what is written of these settings; raise ConfigError."""
    written: dict[str, Written] = {}
    if config_path is not None:
        written.update(_from_file(settings, config_path))
    written.update(_from_environment(settings, environ))
    written.update(overrides)
    values = {
        key: _convert(settings[key], value, origin, convert_path)
        for key, (value, origin) in written.items()
    }
    return Loaded(values, {key: one.origin for key, one in written.items()})


def _from_file(settings: Mapping[str, Setting], path: Path) -> dict[str, Written]:
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    sections = {setting.section for setting in settings.values()} - {""}
    found: dict[str, Written] = {}
    for name, value in document.items():
        if name in sections:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {name} is a section; write it as [{name}]")
            entries = {f"{name}.{inner}": inner_value for inner, inner_value in value.items()}
        elif isinstance(value, dict) and name not in settings:
            near = _nearest(name, sections)
            raise ConfigError(f"{path}: there is no section [{name}]{near}")
        else:
            entries = {name: value}
        for key, entry in entries.items():
            _add(found, settings, key, Written(entry, str(path)), path.parent)
    return found


def _add(
    found: dict[str, Written],
    settings: Mapping[str, Setting],
    key: str,
    written: Written,
    directory: Path,
) -> None:
    """Add one entry of the file, or the secret in the file that it names."""
    target = key.removesuffix("_file")
    if key not in settings and target in settings and settings[target].is_secret:
        where = f"{key} in {written.origin}"
        if not isinstance(written.value, str):
            raise ConfigError(f"{where} must be a path")
        written = Written(_read_secret(directory / written.value, where), where)
        key = target
    if key not in settings:
        raise ConfigError(f"{written.origin}: there is no setting {key}{_nearest(key, settings)}")
    if key in found:
        raise ConfigError(f"{written.origin}: set {key} or {key}_file, not both")
    found[key] = written


def _from_environment(
    settings: Mapping[str, Setting], environ: Mapping[str, str]
) -> dict[str, Written]:
    keys = {setting.variable: setting.key for setting in settings.values()}
    secrets = {
        setting.variable + "_FILE": setting.key
        for setting in settings.values()
        if setting.is_secret
    }
    found: dict[str, Written] = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(VARIABLE_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        if variable in keys:
            key = keys[variable]
        elif variable in secrets:
            key = secrets[variable]
            value = _read_secret(Path(value), variable)
        elif _INJECTED_VARIABLE.fullmatch(variable):
            continue
        else:
            near = _nearest(variable, [*keys, *secrets])
            raise ConfigError(f"{variable} in the environment is no setting{near}")
        if key in found:
            raise ConfigError(f"set {settings[key].variable} or {variable}, not both")
        found[key] = Written(value, variable)
    return found


def _read_secret(path: Path, where: str) -> str:
    """Return the text of a secret's file without the end of its line."""
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(_SECRET_BYTES_MAX + 1)
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: {path} is not UTF-8 text") from error
    if len(data) > _SECRET_BYTES_MAX or not text.strip():
        raise ConfigError(f"{where}: {path} must hold the secret and nothing else")
    return text.rstrip("\r\n")


def _convert(
    setting: Setting, value: Any, origin: str, convert_path: Callable[[type, Any], Any]
) -> Any:
    """Return the value in the setting's type; text of the environment is read as that type."""
    # Text only comes from TOML where a text is meant, and then reading it changes nothing.
    is_text = isinstance(value, str)
    try:
        if is_text and setting.is_optional and not value:
            return None
        if is_text and setting.item_type is not None:
            value = _items(setting, value)
        converted = msgspec.convert(
            value,
            setting.annotation,
            strict=not is_text or origin != setting.variable,
            dec_hook=convert_path,
        )
        _check_format(setting, converted)
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        shown = "is wrong" if setting.is_secret else f"cannot be {_shown(value)}"
        # Of a single value the allowed range says all; of a list or a text, what is amiss in it.
        is_plain = setting.format is None and setting.item_type is None
        detail = "" if is_plain else f" ({error})"
        place = "" if origin.startswith(setting.key) else f" from {origin}"
        raise ConfigError(
            f"{setting.key}{place} {shown}{detail}; allowed is {setting.allowed}"
        ) from error
    return converted


def _items(setting: Setting, text: str) -> list[Any]:
    """Split a list written in a variable: by commas, or as JSON when its items are tables."""
    if issubclass(setting.item_type, msgspec.Struct):
        items: list[Any] = msgspec.json.decode(text, type=list)
        return items
    return [item.strip() for item in text.split(",") if item.strip()]


def _check_format(setting: Setting, value: Any) -> None:
    if setting.format is None or value is None:
        return
    check = FORMATS[setting.format].check
    for item in (value,) if isinstance(value, str) else value:
        check(item)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 80 else text[:77] + "…"


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that was probably meant."""
    names = list(known)
    last = re.split(r"\.|__", name)[-1]
    elsewhere = [one for one in names if re.split(r"\.|__", one)[-1] == last]
    close = elsewhere or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
