"""All settings of the daemon: one frozen tree, read from a TOML file and the environment.

Each field carries its own meaning; `authz config` and docs/settings.md are made from it. A
setting named `hook.listen` is `listen` in the file's `[hook]` and `AUTHZ_HOOK__LISTEN` in the
environment, which wins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Struct

from authz.config import load as loading
from authz.config.alerts import EmailSettings, EventSettings, WebhookSettings
from authz.config.archive import ArchiveSettings
from authz.config.fields import Setting, about, settings_of
from authz.config.freeswitch import FreeswitchSettings, check_freeswitch
from authz.config.freeswitch_web import FreeswitchWebSettings
from authz.config.kazoo import KazooSettings, check_kazoo
from authz.config.metrics import MetricsSettings
from authz.config.sections import (
    AdminSettings,
    CallSettings,
    DeckSettings,
    FailureSettings,
    HookSettings,
    LogSettings,
    NumberSettings,
    ServerSettings,
    SpoolSettings,
    StoreSettings,
)
from authz.errors import ConfigError


class Settings(Struct, frozen=True, kw_only=True):
    """The whole tree. Only `state_dir` has no default here; the loader takes it from the system."""

    state_dir: Annotated[
        Path,
        about("Directory of the own store, of spooled settles and compiled decks.", restart=True),
    ]
    store: StoreSettings = StoreSettings()
    hook: HookSettings = HookSettings()
    admin: AdminSettings = AdminSettings()
    calls: CallSettings = CallSettings()
    decks: DeckSettings = DeckSettings()
    failure: FailureSettings = FailureSettings()
    numbers: NumberSettings = NumberSettings()
    spool: SpoolSettings = SpoolSettings()
    server: ServerSettings = ServerSettings()
    archive: ArchiveSettings = ArchiveSettings()
    events: EventSettings = EventSettings()
    webhooks: WebhookSettings = WebhookSettings()
    email: EmailSettings = EmailSettings()
    freeswitch: FreeswitchSettings = FreeswitchSettings()
    freeswitch_web: FreeswitchWebSettings = FreeswitchWebSettings()
    kazoo: KazooSettings = KazooSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()


class LoadedSettings(NamedTuple):
    """The settings, and where each that is not a default was written, by key."""

    settings: Settings
    origins: dict[str, str]


def all_settings() -> dict[str, Setting]:
    """Return the description of every setting by its key."""
    return settings_of(Settings)


def load_settings(config_path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file, if one is given, and the environment over it; raise ConfigError."""
    return load_with_origins(config_path, environ, {}).settings


def load_with_origins(
    config_path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, loading.Written],
) -> LoadedSettings:
    """Do as `load_settings`, with `overrides` over both, and say where each value is from."""
    described = all_settings()
    values, origins = loading.load(described, config_path, environ, overrides, convert_path)
    if values.get("state_dir") is None:
        values["state_dir"], origins["state_dir"] = default_state_dir(environ)
    values["state_dir"] = values["state_dir"].expanduser().absolute()
    tree: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        setting = described[key]
        target = sections.setdefault(setting.section, {}) if setting.section else tree
        target[setting.name] = value
    hints = {one.name: one.type for one in msgspec.structs.fields(Settings)}
    for name, section in sections.items():
        tree[name] = hints[name](**section)
    settings = Settings(**tree)
    _check_together(settings)
    return LoadedSettings(settings, origins)


def default_state_dir(environ: Mapping[str, str]) -> tuple[Path, str]:
    """Return the state directory for this user, and what it follows from."""
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":")[0]), "default (STATE_DIRECTORY)"
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"], "authz"), "default (XDG_STATE_HOME)"
    if os.geteuid() == 0:
        return Path("/var/lib/authz"), "default (root)"
    return Path("~/.local/state/authz"), "default"


def _check_together(settings: Settings) -> None:
    """Refuse what is allowed alone but not together."""
    hook, admin = settings.hook, settings.admin
    if hook.listen is None and hook.unix_socket is None:
        raise ConfigError("set hook.listen or hook.unix_socket: no switch could ask anything")
    if hook.listen is not None and hook.listen == admin.listen and not hook.listen.endswith(":0"):
        raise ConfigError(f"hook.listen and admin.listen are both {hook.listen}; change one")
    for rule in settings.numbers.rules:
        if rule.digits_min > rule.digits_max:
            raise ConfigError(
                f"numbers.rules: the rule for prefix {rule.prefix!r} has digits_min "
                f"{rule.digits_min} above digits_max {rule.digits_max}"
            )
    check_freeswitch(settings.freeswitch)
    check_kazoo(settings.kazoo, settings.calls.chunk_seconds)


def convert_path(kind: type, value: Any) -> Any:
    """Make a Path from its text, for msgspec, which knows no paths."""
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


def encode_settings(settings: Settings) -> bytes:
    """Return the settings as JSON, secrets included, for a child process."""
    return msgspec.json.encode(settings, enc_hook=str)


def decode_settings(data: bytes) -> Settings:
    """Return the settings that `encode_settings` wrote."""
    return msgspec.json.decode(data, type=Settings, dec_hook=convert_path)
