"""deploy/freeswitch: well-formed, and of one mind with the code about every name and number."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from authz.config import load_settings
from authz.config.fields import split_address
from authz.config.freeswitch import FreeswitchSettings, SwitchSettings
from authz.config.sections import HookSettings
from authz.hooks.freeswitch import variables
from authz.hooks.freeswitch.refusals import refusal_of
from authz.hooks.freeswitch.web import CDR_PATH, DIALPLAN_PATH
from authz.numbers import EMERGENCY
from authz.reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "freeswitch"
FILES = sorted(DEPLOY.rglob("*.xml"))
DOORS = sorted(path.parent.name for path in DEPLOY.glob("doors/*/authz.xml"))
GUIDE = ROOT / "docs" / "freeswitch.md"
DEFAULTS = FreeswitchSettings()


def tree_of(name: str) -> ElementTree.Element:
    """Return a file's document."""
    return ElementTree.parse(DEPLOY / name).getroot()


def parameters(name: str) -> dict[str, str]:
    """Return the parameters of a module's configuration."""
    return {one.attrib["name"]: one.attrib["value"] for one in tree_of(name).iter("param")}


def actions(root: ElementTree.Element) -> list[tuple[str, str]]:
    """Return the applications of a dialplan with their data."""
    return [(one.attrib["application"], one.get("data", "")) for one in root.iter("action")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_file_is_xml_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!-- ")
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    assert ElementTree.fromstring(text).tag in ("include", "configuration")


def test_the_settings_are_valid_and_agree_with_the_switch() -> None:
    settings = load_settings(DEPLOY / "authz.toml", {})
    freeswitch = settings.freeswitch
    socket = parameters("autoload_configs/event_socket.conf.xml")
    [switch] = freeswitch.switches
    assert (switch.host, str(switch.port)) == (socket["listen-ip"], socket["listen-port"])
    assert freeswitch.password_of(switch) == socket["password"]
    lists = {one.attrib["name"] for one in tree_of("autoload_configs/acl.conf.xml").iter("list")}
    assert lists == {socket["apply-inbound-acl"]}
    assert ("socket", f"{freeswitch.outbound_listen} full") in actions(
        tree_of("doors/socket/authz.xml")
    )
    assert settings.hook.listen == HookSettings().listen
    assert freeswitch.contexts == DEFAULTS.contexts
    assert freeswitch.release_context == DEFAULTS.release_context
    assert SwitchSettings(name="x", host="x").port == switch.port


@pytest.mark.parametrize(
    ("name", "parameter", "path"),
    [
        ("xml_curl.conf.xml", "gateway-url", DIALPLAN_PATH),
        ("json_cdr.conf.xml", "url", CDR_PATH),
    ],
)
def test_the_modules_ask_where_we_answer(name: str, parameter: str, path: str) -> None:
    url = urlsplit(parameters(f"autoload_configs/{name}")[parameter])
    listen = HookSettings().listen
    assert listen is not None
    assert (url.scheme, url.hostname, url.port) == ("http", *split_address(listen))
    assert url.path == path


def test_the_records_can_be_read() -> None:
    words = parameters("autoload_configs/json_cdr.conf.xml")
    assert "false" in (words["encode"], words["encode-values"])


def test_every_door_has_one_context_that_fails_closed_and_lets_emergencies_pass() -> None:
    assert DOORS == ["park", "socket", "xml_curl"]
    for door in DOORS:
        root = tree_of(f"doors/{door}/authz.xml")
        assert [one.attrib["name"] for one in root.iter("context")] == list(DEFAULTS.contexts)
        first, last = root.iter("extension")
        assert actions(first) == [("transfer", f"$1 XML {DEFAULTS.release_context}")]
        store_away = refusal_of(REASONS["store_unavailable"])
        application, data = actions(last)[-1]
        if application == "park":
            assert ("set", f"park_timeout=10:{store_away.hangup_cause}") in actions(last)
        else:
            assert (application, data) == ("respond", store_away.status_line)


def test_emergency_numbers_are_those_of_the_code() -> None:
    listed = f"({'|'.join(EMERGENCY)})"
    for name in [*(f"doors/{door}/authz.xml" for door in DOORS), "dialplan/authorized.xml"]:
        first = next(tree_of(name).iter("condition"))
        assert first.attrib["expression"] == f"^{listed}$"
    outside = next(tree_of("dialplan/default/00_authz.xml").iter("condition")).attrib["expression"]
    assert outside.startswith(f"^({'|'.join(EMERGENCY)}|")
    for dialled in (*EMERGENCY, "4155550100", "+442071838750", "011442071838750", "00442071838750"):
        assert re.match(outside, dialled)
    for dialled in ("1001", "*97", "5900"):
        assert not re.match(outside, dialled)


def test_contexts_lead_where_something_is() -> None:
    known = {
        one.attrib["name"] for path in FILES for one in ElementTree.parse(path).iter("context")
    }
    assert known == {*DEFAULTS.contexts, DEFAULTS.release_context}
    for path in FILES:
        for application, data in actions(ElementTree.parse(path).getroot()):
            if application == "transfer":
                assert data.split()[1:] in (["XML", name] for name in known)


@pytest.mark.parametrize("path", [*FILES, GUIDE], ids=lambda path: path.name)
def test_channel_variables_are_those_of_the_code(path: Path) -> None:
    known = {value for name, value in vars(variables).items() if name.isupper()}
    # Names of the module's own files and of metrics look alike; variables stand alone.
    used = set(re.findall(r"(?<![\w./-])authz_[a-z_]+(?![\w./-])", path.read_text("utf-8")))
    assert used <= known
