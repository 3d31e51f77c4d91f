"""What [freeswitch_web] takes and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.config import load_settings
from authz.errors import ConfigError


@pytest.mark.parametrize(
    "bridge",
    [
        "sofia/gateway/carrier/{number}",
        "{ignore_early_media=true}sofia/gateway/{account}/{digits}|user/{dialled}@${domain_name}",
        "[leg_timeout=20]sofia/external/${authz_to}@192.0.2.1",
    ],
)
def test_a_dial_string_keeps_the_switch_s_own_braces(bridge: str, tmp_path: Path) -> None:
    environ = {"AUTHZ_FREESWITCH_WEB__BRIDGE": bridge, "AUTHZ_STATE_DIR": str(tmp_path)}
    assert load_settings(None, environ).freeswitch_web.bridge == bridge


@pytest.mark.parametrize(
    ("bridge", "message"),
    [
        ("sofia/gateway/carrier/{nummer}", "unknown {nummer}"),
        ("sofia/gateway/carrier/{number}\n", "outside ASCII"),
        ("sofia/gateway/träger/{number}", "outside ASCII"),
        (" ", "is empty"),
    ],
)
def test_a_wrong_dial_string_is_told_of(bridge: str, message: str, tmp_path: Path) -> None:
    environ = {"AUTHZ_FREESWITCH_WEB__BRIDGE": bridge, "AUTHZ_STATE_DIR": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"freeswitch_web\.bridge") as caught:
        load_settings(None, environ)
    assert message in str(caught.value)


@pytest.mark.parametrize("seconds", ["59", "86401", "an hour"])
def test_the_longest_call_has_bounds(seconds: str, tmp_path: Path) -> None:
    environ = {
        "AUTHZ_FREESWITCH_WEB__LONGEST_CALL_SECONDS": seconds,
        "AUTHZ_STATE_DIR": str(tmp_path),
    }
    with pytest.raises(ConfigError, match=r"from 60 to 86400"):
        load_settings(None, environ)
