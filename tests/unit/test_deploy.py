"""The files of deploy/: what they say of authz is so, and the tools that read them take them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.cli.main import SUBCOMMANDS
from authz.config import Settings, load_settings
from authz.config.sections import ServerSettings

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = ROOT / "deploy/container"
UNIT = ROOT / "deploy/systemd/authz.service"
COMPOSE: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text(encoding="utf-8"))


# systemd.


def systemd_analyze() -> str:
    path = shutil.which("systemd-analyze")
    if path is None:
        raise LookupError("no systemd-analyze on the PATH: apt-get install systemd")
    return path


def installed_unit(tmp_path: Path) -> Path:
    """Return the unit with the command where it is here."""
    command = Path(sys.executable).with_name("authz")
    text = UNIT.read_text(encoding="utf-8").replace("/opt/authz/bin/authz", str(command))
    path = tmp_path / "authz.service"
    path.write_text(text, encoding="utf-8")
    return path


def directive(name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    return str(value)


def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    unit = installed_unit(tmp_path)
    for arguments in (["verify"], ["security", "--offline=yes", "--threshold=20", "--no-pager"]):
        done = subprocess.run(
            [systemd_analyze(), *arguments, str(unit)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""


def test_the_unit_leaves_the_daemon_time_and_order_for_its_end() -> None:
    assert directive("Type") == "notify"
    # A signal to all would end the own store before what it serves.
    assert directive("KillMode") == "mixed"
    assert int(directive("TimeoutStopSec")) > 4 * ServerSettings().drain_seconds
    assert int(directive("WatchdogSec")) > ServerSettings().hang_seconds
    assert directive("ExecStart").endswith(" serve")
    assert directive("RestartPreventExitStatus") == "2"


# Containers.


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Containerfile, continued lines joined."""
    text = (CONTAINER / "Containerfile").read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_has_all_that_is_installed_from() -> None:
    copied = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    places = {
        Path(place).parts[0] for place in project["tool"]["setuptools"]["package-dir"].values()
    }
    assert places | {"pyproject.toml", "setup.py", project["project"]["readme"], "LICENSE"} <= {
        *copied
    }


def test_the_image_runs_the_daemon_as_nobody_in_particular() -> None:
    (user,) = [rest for word, rest in instructions() if word == "USER"]
    assert user.split(":")[0].isdigit()
    assert int(user.split(":")[0]) != 0
    last = dict(instructions())
    assert (last["ENTRYPOINT"], last["CMD"]) == ('["authz"]', '["serve"]')
    (_, check) = last["HEALTHCHECK"].split("CMD ")
    program, subcommand, option = yaml.safe_load(check)
    assert (program, option) == ("authz", "--live")
    assert subcommand in SUBCOMMANDS
    images = [rest for word, rest in instructions() if word == "FROM"]
    assert all(
        re.match(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+( |$)", one) for one in images
    )


def test_every_image_is_pinned_and_every_service_confined() -> None:
    for name, service in COMPOSE["services"].items():
        _, _, tag = service["image"].rpartition(":")
        assert re.match(r"v?\d+\.\d+\.\d+", tag), name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        # Grafana unpacks its plugins beside its program.
        assert service.get("read_only") is True or name == "grafana"


def test_what_compose_refers_to_is_there() -> None:
    for service in COMPOSE["services"].values():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (CONTAINER / source).is_dir()
            else:
                assert source in COMPOSE["volumes"]
    build = COMPOSE["services"]["authz"]["build"]
    assert (CONTAINER / build["context"] / build["dockerfile"]).is_file()


def settings_of_compose(tmp_path: Path) -> Settings:
    environ = dict(COMPOSE["services"]["authz"]["environment"])
    for name, value in environ.items():
        if name.endswith("_FILE"):
            secret = tmp_path / Path(value).name
            secret.write_text("0123456789abcdef" * 3 + "\n", encoding="utf-8")
            environ[name] = str(secret)
    return load_settings(None, environ)


def test_the_daemon_takes_the_settings_of_compose(tmp_path: Path) -> None:
    settings = settings_of_compose(tmp_path)
    assert settings.hook.token is not None
    assert settings.admin.token is not None
    assert settings.metrics.access == "all"
    assert settings.store.url == "redis://valkey:6379/0"
    command = COMPOSE["services"]["valkey"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


def test_prometheus_is_configured_alike_in_compose() -> None:
    inside = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])
    outside = yaml.safe_load(
        (ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
    )
    assert inside["global"] == outside["global"]
    assert inside["rule_files"] == outside["rule_files"]
    jobs = [config["scrape_configs"][0]["job_name"] for config in (inside, outside)]
    assert jobs == ["authz", "authz"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy").rglob("*.y*ml")), ids=lambda one: one.name
)
def test_yaml_is_well_formed(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


def test_grafana_finds_its_dashboards_and_its_datasource() -> None:
    grafana = COMPOSE["services"]["grafana"]
    mounted = dict(volume.split(":")[:2][::-1] for volume in grafana["volumes"])
    provisioning = ROOT / "deploy/grafana/provisioning"
    provider = yaml.safe_load((provisioning / "dashboards/authz.yml").read_text(encoding="utf-8"))
    folder = provider["providers"][0]["options"]["path"]
    assert (CONTAINER / mounted[folder]).resolve() == ROOT / "deploy/grafana/dashboards"
    assert (CONTAINER / mounted["/etc/grafana/provisioning"]).resolve() == provisioning
    source = yaml.safe_load(
        (provisioning / "datasources/prometheus.yml").read_text(encoding="utf-8")
    )
    variable = source["datasources"][0]["url"]
    assert variable.strip("${}") in grafana["environment"]
