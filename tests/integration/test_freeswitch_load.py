"""The load on the FreeSWITCH agent does what it says, in small."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]


async def test_every_call_of_the_load_is_decided_and_settled() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.freeswitch_load", "20", "1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
    )
    async with asyncio.timeout(180):
        told, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    assert "20 released, 0 refused, 20 settled, 0 lost, 0 findings" in told.decode()
