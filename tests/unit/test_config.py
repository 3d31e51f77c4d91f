"""Settings: what is read from where, and what is said about a wrong one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from authz.config import (
    Settings,
    all_settings,
    decode_settings,
    encode_settings,
    load_settings,
    load_with_origins,
)
from authz.config import docs as config_docs
from authz.config.fields import FORMATS, split_address
from authz.config.load import Written
from authz.config.sections import NumberRule
from authz.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "correct-horse-battery"


def write(directory: Path, text: str) -> Path:
    path = directory / "authz.toml"
    path.write_text(text)
    return path


def error_of(config_path: Path | None, environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(config_path, environ)
    return str(caught.value)


def test_without_anything_all_is_default() -> None:
    settings = load_settings(None, {"STATE_DIRECTORY": "/var/lib/authz:/other"})
    assert settings == Settings(state_dir=Path("/var/lib/authz"))


def test_defaults_are_what_the_descriptions_allow() -> None:
    settings = Settings(state_dir=Path("/var/lib/authz"))
    assert decode_settings(encode_settings(settings)) == settings
    for setting in all_settings().values():
        assert setting.meaning.endswith(".")
        value = setting.value_in(settings)
        if setting.format is not None and value is not None:
            for item in (value,) if isinstance(value, str) else value:
                FORMATS[setting.format].check(item)


def test_the_environment_wins_over_the_file_and_an_option_over_both(tmp_path: Path) -> None:
    path = write(tmp_path, "[hook]\nworkers = 2\nidle_seconds = 10\nin_flight_max = 5\n")
    loaded = load_with_origins(
        path,
        {"AUTHZ_HOOK__WORKERS": "3", "AUTHZ_HOOK__IDLE_SECONDS": "20"},
        {"hook.workers": Written(4, "--workers")},
    )
    hook = loaded.settings.hook
    assert (hook.workers, hook.idle_seconds, hook.in_flight_max) == (4, 20, 5)
    assert loaded.origins["hook.workers"] == "--workers"
    assert loaded.origins["hook.idle_seconds"] == "AUTHZ_HOOK__IDLE_SECONDS"
    assert loaded.origins["hook.in_flight_max"] == str(path)


@pytest.mark.parametrize(
    ("environ", "state_dir"),
    [
        ({"AUTHZ_STATE_DIR": "/a", "STATE_DIRECTORY": "/b"}, "/a"),
        ({"STATE_DIRECTORY": "/b", "XDG_STATE_HOME": "/c"}, "/b"),
        ({"XDG_STATE_HOME": "/c"}, "/c/authz"),
    ],
)
def test_the_state_directory_is_where_the_system_wants_it(
    environ: dict[str, str], state_dir: str
) -> None:
    assert load_settings(None, environ).state_dir == Path(state_dir)


def test_without_hints_it_depends_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert load_settings(None, {}).state_dir == Path("/var/lib/authz")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert load_settings(None, {}).state_dir == Path("~/.local/state/authz").expanduser()


def test_values_of_every_kind_come_from_the_environment() -> None:
    settings = load_settings(
        None,
        {
            "AUTHZ_STATE_DIR": "/x",
            "AUTHZ_LOG__MASK_NUMBERS": "false",
            "AUTHZ_LOG__LEVEL": "debug",
            "AUTHZ_HOOK__ALLOW": "10.0.0.1, 10.2.0.0/16,",
            "AUTHZ_HOOK__UNIX_SOCKET": "/run/authz.sock",
            "AUTHZ_NUMBERS__RULES": '[{"prefix": "0", "replace": "+44", "digits_min": 10}]',
        },
    )
    assert settings.log.mask_numbers is False
    assert settings.log.level == "debug"
    assert settings.hook.allow == ("10.0.0.1", "10.2.0.0/16")
    assert settings.hook.unix_socket == Path("/run/authz.sock")
    assert settings.numbers.rules == (NumberRule(prefix="0", replace="+44", digits_min=10),)


def test_an_empty_text_is_no_value(tmp_path: Path) -> None:
    path = write(
        tmp_path, '[hook]\nlisten = ""\nunix_socket = "/run/a"\n[store]\nurl = "redis://a"'
    )
    settings = load_settings(path, {"AUTHZ_STORE__URL": ""})
    assert settings.hook.listen is None
    assert settings.store.url is None


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text(f"{TOKEN}\n")
    (tmp_path / "admin").write_text(f"{TOKEN}-admin")
    path = write(tmp_path, '[hook]\ntoken_file = "hook"\n')
    settings = load_settings(path, {"AUTHZ_ADMIN__TOKEN_FILE": str(tmp_path / "admin")})
    assert settings.hook.token == TOKEN
    assert settings.admin.token == f"{TOKEN}-admin"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[hook]\nworkrs = 1", "no setting hook.workrs; did you mean hook.workers?"),
        ("[hoo]\nworkers = 1", "no section [hoo]; did you mean hook?"),
        ("[hook]\nchunk_seconds = 1", "did you mean calls.chunk_seconds?"),
        ("listen = 1", "did you mean hook.listen?"),
        ("hook = 1", "hook is a section; write it as [hook]"),
        ("a = = 1", "is not valid TOML"),
        ("[hook]\nworkers = 0", "authz.toml cannot be 0; allowed is a whole number from 1 to 128"),
        ("[hook]\nworkers = '3'", 'cannot be "3"; allowed is a whole number'),
        ("[hook]\nworkers = true", "cannot be true; allowed is a whole number"),
        ("[hook]\nworkers = 1.5", "cannot be 1.5; allowed is a whole number"),
        ("[log]\nmask_numbers = 'no'", "allowed is true or false"),
        ("[log]\nlevel = 'loud'", "allowed is one of debug, info, warning, error"),
        ("[hook]\nlisten = 'localhost'", "(it has no port); allowed is an address and port"),
        ("[hook]\nlisten = '::1:80'", "an IPv6 address is written in brackets"),
        ("[hook]\nallow = ['10.0.0.300']", "does not appear to be an IPv4 or IPv6 network"),
        ("[hook]\nunix_socket_mode = '999'", "allowed is an octal file mode"),
        ("[store]\nurl = 'http://x'", "it does not start with redis://"),
        ("[decks]\ntimezone = 'Mars/Base'", "no such time zone"),
        ("[decks]\ncurrency = 'usd'", "it is not three capital letters"),
        ("[numbers]\nemergency = ['+44']", "other characters than digits"),
        ("[[numbers.rules]]\nprefx = '0'\nreplace = '+'", "unknown field `prefx`"),
        ("[[numbers.rules]]\nreplace = '44'", "numbers.rules"),
        ("[[numbers.rules]]\nreplace = '+'\ndigits_min = 9\ndigits_max = 8", "above digits_max"),
        ("[hook]\ntoken_file = 'none'", "hook.token_file"),
        ("[hook]\ntoken = 'x'\ntoken_file = 'authz.toml'", "not both"),
        ("[hook]\nlisten = ''", "no switch could ask anything"),
        ("[admin]\nlisten = '127.0.0.1:8700'", "are both 127.0.0.1:8700"),
    ],
)
def test_a_wrong_file_is_told_precisely(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    assert words in error_of(path, {"AUTHZ_STATE_DIR": "/x"})


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AUTHZ_HOOK__WORKERS", "x", 'hook.workers from AUTHZ_HOOK__WORKERS cannot be "x"'),
        ("AUTHZ_HOOK__WORKERS", "", "hook.workers from AUTHZ_HOOK__WORKERS"),
        ("AUTHZ_HOOK_WORKERS", "1", "did you mean AUTHZ_HOOK__WORKERS?"),
        ("AUTHZ_CALLS__WORKERS", "1", "did you mean AUTHZ_HOOK__WORKERS?"),
        ("AUTHZ_NUMBERS__RULES", "0=+44", "numbers.rules from AUTHZ_NUMBERS__RULES"),
        ("AUTHZ_HOOK__TOKEN_FILE", "/nowhere", "AUTHZ_HOOK__TOKEN_FILE: /nowhere cannot be read"),
        ("AUTHZ_HOOK__WORKERS_FILE", "/x", "is no setting"),
    ],
)
def test_a_wrong_variable_is_told_precisely(variable: str, value: str, words: str) -> None:
    assert words in error_of(None, {variable: value})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in error_of(tmp_path / "none.toml", {})


def test_a_wrong_secret_is_never_shown(tmp_path: Path) -> None:
    for environ in ({"AUTHZ_HOOK__TOKEN": "geheim"}, {"AUTHZ_STORE__URL": "geheim"}):
        assert "geheim" not in error_of(None, environ)
    (tmp_path / "empty").write_text("\n")
    assert "must hold the secret" in error_of(
        None, {"AUTHZ_HOOK__TOKEN_FILE": str(tmp_path / "empty")}
    )
    (tmp_path / "token").write_text(TOKEN)
    both = {"AUTHZ_HOOK__TOKEN": TOKEN, "AUTHZ_HOOK__TOKEN_FILE": str(tmp_path / "token")}
    assert "not both" in error_of(None, both)


def test_variables_that_are_no_settings_are_left_alone() -> None:
    load_settings(
        None,
        {
            "AUTHZ_CONFIG": "/x",
            "AUTHZ_DEBUG": "1",
            "AUTHZ_SERVICE_HOST": "10.0.0.1",
            "AUTHZ_PORT_8700_TCP_ADDR": "10.0.0.1",
            "AUTHZ_ADMIN_SERVICE_PORT_HTTP": "80",
        },
    )


@pytest.mark.parametrize(
    ("address", "split"),
    [("127.0.0.1:1", ("127.0.0.1", 1)), ("[::1]:2", ("::1", 2)), ("host:65535", ("host", 65535))],
)
def test_addresses_are_split(address: str, split: tuple[str, int]) -> None:
    assert split_address(address) == split


@pytest.mark.parametrize("address", ["", ":1", "a:", "a:x", "a:65536", "a:-1", "::1", "a:²"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"port|brackets"):
        split_address(address)


def test_the_written_file_reads_back_to_the_same_settings(tmp_path: Path) -> None:
    environ = {
        "AUTHZ_STATE_DIR": str(tmp_path),
        "AUTHZ_HOOK__ALLOW": "10.0.0.1,10.2.0.0/16",
        "AUTHZ_HOOK__LISTEN": "",
        "AUTHZ_HOOK__UNIX_SOCKET": '/run/quo"te.sock',
        "AUTHZ_CALLS__ENFORCE": "false",
        "AUTHZ_NUMBERS__RULES": '[{"prefix":"0","replace":"+44"},{"replace":"+"}]',
    }
    loaded = load_with_origins(None, environ, {})
    path = write(tmp_path, config_docs.toml(loaded))
    assert load_settings(path, {}) == loaded.settings
    assert "token" not in tomllib.loads(path.read_text()).get("hook", {})


def test_every_commented_default_of_the_file_is_valid(tmp_path: Path) -> None:
    text = config_docs.toml(load_with_origins(None, {"AUTHZ_STATE_DIR": str(tmp_path)}, {}))
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    enabled = "\n".join(
        line for line in lines if re.match(r"\[|\w+ = ", line) and "_file = " not in line
    )
    assert load_settings(write(tmp_path, enabled), {}) == Settings(state_dir=tmp_path)


def test_the_document_is_up_to_date() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()
    assert written == config_docs.markdown(), "run python -m authz.config.docs > docs/settings.md"
