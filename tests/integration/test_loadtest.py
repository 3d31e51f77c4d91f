"""A short load test from the command line, as a user runs it: its own daemon, store and audit."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import is_alive

from loadtest.daemon import own_daemon

ROOT = Path(__file__).parent.parent.parent
LIMIT_SECONDS = 180


async def load(*arguments: str) -> tuple[int, str, str]:
    """Run `python -m loadtest`; return its status, output and errors."""
    environment = {name: text for name, text in os.environ.items() if name[:6] != "AUTHZ_"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtest", *arguments),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        process.terminate()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def total(document: dict[str, Any], operation: str) -> int:
    return sum(int(phase["operations"][operation]["count"]) for phase in document["phases"])


def short_scenario(directory: Path) -> Path:
    """Write `steady` with calls of five minutes in a second: the warm-up needs no longer."""
    path = directory / "short.toml"
    steady = (ROOT / "loadtest" / "scenarios" / "steady.toml").read_text()
    path.write_text("speed = 300\nwarmup_seconds = 1\n" + steady)
    return path


async def test_three_seconds_of_load_end_with_a_clean_audit(tmp_path: Path) -> None:
    scenario = short_scenario(tmp_path)

    status, output, errors = await load(
        *(str(scenario), "--rate", "300", "--seconds", "3", "--seed", "t", "--stalls"),
        *("--output", str(tmp_path)),
    )

    assert status == 0, output + errors
    document = json.loads((tmp_path / "result.json").read_text())
    (phase,) = document["phases"]
    assert phase["errors"] == {}
    assert phase["denials"] == {}
    assert phase["emergencies"] == phase["emergencies_allowed"]
    for operation in ("authorize", "reserve", "settle"):
        assert total(document, operation) > 50
        assert phase["operations"][operation]["p50_ms"] > 0
    assert document["floor"]["operations"]["authorize"]["count"] > 0
    assert set(phase["cpu"]) >= {"generators", "hook workers", "store"}
    assert document["stalls"]["count"] > 0
    assert set(document["stalls"]["within"]) >= {"generators", "hook workers", "store"}
    assert "machine: before the load" in output
    audit = document["audit"]
    assert audit["findings"] == []
    assert (audit["accounts"], audit["calls"]) == (272, 0)
    # The warm-up's calls are booked as well.
    assert audit["entries"] > total(document, "settle")
    assert "audit: 0 findings" in output
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


async def test_a_running_daemon_is_loaded_and_left_running(tmp_path: Path) -> None:
    async with own_daemon({}, over_unix=False) as daemon:
        assert daemon.pid is not None
        status, output, errors = await load(
            *(str(short_scenario(tmp_path)), "--rate", "200", "--seconds", "1", "--runs", "2"),
            *("--target", f"http://{daemon.target.text}", "--store", daemon.store_url),
            *("--state-dir", str(daemon.state_dir), "--no-floor", "--output", str(tmp_path)),
        )

        assert status == 0, output + errors
        assert is_alive(daemon.pid)
        document = json.loads((tmp_path / "result.json").read_text())
        assert len(document["runs"]) == 2
        assert document["floor"] is None
        assert document["options"]["daemon"] == {"target": daemon.target.text}
        assert document["audit"]["findings"] == []


async def test_a_load_that_is_told_to_end_takes_its_daemon_with_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtest", "hot-account", "--no-floor", "--unix"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(LIMIT_SECONDS):
        async for line in process.stderr:
            if line.startswith(b"load "):
                break
    children = children_of(process.pid)
    process.terminate()
    async with asyncio.timeout(LIMIT_SECONDS):
        rest = await process.stderr.read()
        status = await process.wait()

    assert status == 130, rest
    assert children
    assert not any(map(is_alive, children))


def children_of(pid: int) -> list[int]:
    """Return every process below this one."""
    pids = [pid]
    for one in pids:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            pids += map(int, path.read_text().split())
    return pids[1:]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--target", "http://10.0.0.5:8700", "--store", "redis://127.0.0.1"), "--allow-remote"),
        (("--target", "http://127.0.0.1:8700"), "--target also needs --store"),
        (("--store", "redis://127.0.0.1"), "--store is for --target"),
        (("--state-dir", "."), "--state-dir is for --target"),
        (
            ("--target", "http://127.0.0.1:8700", "--store", "redis://127.0.0.1", "--stalls"),
            "--stalls are for an own daemon",
        ),
        (("stedy",), "no scenario stedy"),
        (("overload", "--rate", "5"), "several phases"),
    ],
)
async def test_what_cannot_be_run_is_said(arguments: tuple[str, ...], complaint: str) -> None:
    status, output, errors = await load(*arguments)

    assert status == 1, output
    assert complaint in errors


async def test_the_scenarios_are_listed() -> None:
    status, output, _ = await load("--list")

    assert status == 0
    assert [line.split()[0] for line in output.splitlines()] == [
        "dialler-storm", "hot-account", "many-accounts", "million-prefixes", "overload",
        "steady", "trunks",
    ]  # fmt: skip
