"""`authz demo` as a newcomer runs it: every call ends as the story says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from ports import free_port
from processes import is_alive

LIMIT_SECONDS = 120

SALES, SUPPORT = "acme-sales", "acme-support"
US, UK, TOLLFREE = "+14155550100", "+442071838750", "+18005551212"

#: Scene, account, number, answer, charged, then the balances of acme, acme-sales, acme-support.
STORY = [
    ("allowed on credit", SALES, US, "60 s granted, 47 s", "0.008 + 0.008",
     ["4.992", "1.992", "0"]),
    ("extended, settled", SALES, UK, "60 s granted, then 105 s granted, 93 s",
     "0.01209 + 0.01209", ["4.97991", "1.97991", "0"]),
    ("on a trunk", SUPPORT, US, "acme-support by trunk, acme by per_minute, 60 s", "0 + 0.01",
     ["4.96991", "1.97991", "0"]),
    ("toll-free, no credit", SUPPORT, TOLLFREE, "allowed, 300 s", "0 + 0",
     ["4.96991", "1.97991", "0"]),
    ("refused for credit", SUPPORT, UK, "insufficient_credit, SIP 402", "",
     ["4.96991", "1.97991", "0"]),
    ("emergency, disabled", SUPPORT, "911", "allowed, 30 s", "0 + 0",
     ["4.96991", "1.97991", "0"]),
    ("never hung up", SALES, US, "12 s granted, 6 s reported", "held",
     ["4.96991", "1.97991", "0"]),
    ("became an orphan", SALES, US, "6 s charged, hold freed", "0.001 + 0.001",
     ["4.96891", "1.97891", "0"]),
]  # fmt: skip


async def run_demo(state_dir: Path, *options: str) -> tuple[int | None, bytes, bytes]:
    """Run the demonstration on free ports; return its exit status, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "authz", "demo", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "AUTHZ_STATE_DIR": str(state_dir),
            "AUTHZ_HOOK__LISTEN": f"127.0.0.1:{free_port()}",
            "AUTHZ_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
        },
    )
    async with asyncio.timeout(LIMIT_SECONDS):
        output, errors = await process.communicate()
    return process.returncode, output, errors


async def test_the_demonstration_tells_its_story_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    # Something that an earlier demonstration has left is in nobody's way.
    leftover = tmp_path / "demo" / "store" / "leftover"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    status, output, errors = await run_demo(tmp_path, "--once", "--json")
    assert (status, errors) == (0, b"")
    rows = json.loads(output)
    names = ("scene", "account", "to", "answer", "charged", "balances")
    assert [tuple(row[name] for name in names) for row in rows] == STORY
    assert not leftover.exists()
    lines = (tmp_path / "demo" / "daemon.log").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["level"] for event in events} <= {"info", "debug", "warning"}
    assert not any(is_alive(event["pid"]) for event in events if "pid" in event)
