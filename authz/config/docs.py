"""The settings for people to read: rows of `authz config`, a TOML file, docs/settings.md.

`python -m authz.config.docs` prints docs/settings.md; a test compares the two.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from authz import log
from authz.config import LoadedSettings, Settings, all_settings
from authz.config.fields import Setting, item_fields, secret_fields, sections_of

_HIDDEN: Final = "(set, not shown)"
_LINE_COLUMNS: Final = 96
_STATE_DIR: Final = (
    "`$STATE_DIRECTORY` (systemd), else `$XDG_STATE_HOME/authz`, else `/var/lib/authz` for root "
    "and `~/.local/state/authz` for others"
)


class Row(msgspec.Struct, frozen=True):
    """One setting as `authz config` shows it. `value` is null without one, and never a secret."""

    key: str
    variable: str
    value: Any
    origin: str
    meaning: str
    allowed: str

    @property
    def text(self) -> str:
        """The value for a table."""
        if self.value is None or self.value == ():
            return "-"
        if not isinstance(self.value, tuple):
            return _toml_value(self.value).strip('"')
        is_simple = all(isinstance(one, str) for one in self.value)
        return ", ".join(self.value) if is_simple else f"{len(self.value)} tables"

    def has(self, words: Sequence[str]) -> bool:
        """Whether name or meaning contain all the words, in any case."""
        text = f"{self.key} {self.variable} {self.meaning}".lower()
        return all(word.lower() in text for word in words)


def rows(loaded: LoadedSettings) -> list[Row]:
    """Return every setting with its value; secrets are hidden."""
    return [
        Row(
            key=setting.key,
            variable=setting.variable,
            value=_shown(setting, setting.value_in(loaded.settings)),
            origin=loaded.origins.get(setting.key, "default"),
            meaning=setting.meaning,
            allowed=setting.allowed,
        )
        for setting in all_settings().values()
    ]


def toml(loaded: LoadedSettings) -> str:
    """Return a settings file: what is set as it is, the rest as comments with the defaults."""
    lines = ["# Settings of authz. A line that begins with # shows a default."]
    section = ""
    meanings = sections_of(Settings)
    for setting in all_settings().values():
        if setting.section != section:
            section = setting.section
            lines += ["", f"# {meanings[section]}", f"[{section}]"]
        lines += ["", *_comment(f"{setting.meaning} Allowed: {setting.allowed}.")]
        lines.append(_assignment(setting, loaded))
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """Return docs/settings.md."""
    described = all_settings()
    lines = [
        "# Settings",
        "",
        "Generated from `authz/config/` by `python -m authz.config.docs`.",
        "",
        "A setting is looked for in this order: the option of a command, the environment, the",
        "TOML file given by `--config` or `AUTHZ_CONFIG`, the default. `hook.listen` is `listen`",
        "under `[hook]` in the file and `AUTHZ_HOOK__LISTEN` in the environment. In a variable,",
        "the items of a list are separated by commas; lists of tables are written as JSON. An",
        "empty text is no value.",
        "",
        "A secret (*secret* below) can be read from a file instead: `token_file` in place of",
        "`token`, or `AUTHZ_HOOK__TOKEN_FILE`. An unknown name is an error that names the nearest",
        "known one. `SIGHUP` makes the daemon read everything again and replaces its processes one",
        "by one; what is marked *restart* stays as it was until the daemon is restarted.",
    ]
    sections = {"": "The daemon as a whole."} | sections_of(Settings)
    for section, meaning in sections.items():
        lines += ["", f"## {f'[{section}]' if section else 'Top level'}", "", meaning, ""]
        lines += ["| setting | default | allowed | meaning |", "| --- | --- | --- | --- |"]
        lines += [_markdown_row(one) for one in described.values() if one.section == section]
        for setting in described.values():
            if setting.section == section and _has_tables(setting):
                lines += ["", *_markdown_items(setting)]
    return "\n".join(lines) + "\n"


def _markdown_row(setting: Setting) -> str:
    marks = "".join(
        f" *{mark}*"
        for mark, is_marked in (("secret", setting.is_secret), ("restart", setting.needs_restart))
        if is_marked
    )
    if setting.key == "state_dir":
        default = _STATE_DIR
    elif _has_tables(setting) and setting.default:
        default = "see below"
    else:
        default = f"`{_toml_value(setting.default)}`" if setting.default not in (None, ()) else "-"
    return f"| `{setting.name}` | {default} | {setting.allowed} | {setting.meaning}{marks} |"


def _markdown_items(setting: Setting) -> list[str]:
    """Describe the tables of a list, and those that it has by default."""
    lines = [f"Each `[[{setting.key}]]`:", "", "| key | meaning |", "| --- | --- |"]
    for name, meaning, is_required in item_fields(setting.item_type):
        lines.append(f"| `{name}` | {meaning}{' *required*' if is_required else ''} |")
    if setting.default:
        lines += ["", f"Default of `{setting.key}`:", "", "```toml"]
        for item in setting.default:
            lines.append(f"[[{setting.key}]]")
            lines += [f"{name} = {_toml_value(value)}" for name, value in _items(item)]
        lines.append("```")
    return lines


def _has_tables(setting: Setting) -> bool:
    item = setting.item_type
    return isinstance(item, type) and issubclass(item, msgspec.Struct)


def _items(table: Any) -> list[tuple[str, Any]]:
    built: dict[str, Any] = msgspec.to_builtins(table)
    return list(built.items())


def _shown(setting: Setting, value: Any) -> Any:
    if value is None or not setting.is_secret:
        return _masked(value)
    return log.mask_url(value) if setting.format == "store_url" else _HIDDEN


def _masked(value: Any) -> Any:
    """Return a value without the secrets that the tables of a list hold."""
    if isinstance(value, tuple):
        return tuple(_masked(one) for one in value)
    if not isinstance(value, msgspec.Struct):
        return value
    hidden = {name: _HIDDEN for name in secret_fields(type(value)) if getattr(value, name)}
    return msgspec.structs.replace(value, **hidden) if hidden else value


def _assignment(setting: Setting, loaded: LoadedSettings) -> str:
    value = setting.value_in(loaded.settings)
    is_default = loaded.origins.get(setting.key, "default").startswith("default")
    if setting.is_secret:
        # The template may be passed on; the secret must not go with it.
        return f'# {setting.name}_file = "/etc/authz/{setting.section}_{setting.name}"'
    mark = "# " if is_default else ""
    return f"{mark}{setting.name} = {_toml_value(_masked(value))}"


def _toml_value(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, msgspec.Struct):
        return f"{{{', '.join(f'{name} = {_toml_value(one)}' for name, one in _items(value))}}}"
    # A JSON text is a valid basic string of TOML.
    return msgspec.json.encode(str(value)).decode()


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _LINE_COLUMNS, initial_indent="# ", subsequent_indent="# ")


if __name__ == "__main__":
    sys.stdout.write(markdown())
