"""A command on the daemon's host takes the processor behind what decides calls."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from servers import Server

#: Runs a command and prints how the kernel schedules who has run it.
_PROGRAM = """
import os, sys
from authz.cli import main
status = main.run(["deck", "list", "--json"], has_process={has_process})
print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
sys.exit(status)
"""


@pytest.mark.parametrize("has_process", [True, False])
def test_a_command_with_a_process_of_its_own_gives_way(
    store_server: Server, has_process: bool
) -> None:
    program = _PROGRAM.format(has_process=has_process)
    environ = {**os.environ, "AUTHZ_STORE__URL": store_server.url}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    policy, niceness = map(int, done.stdout.splitlines()[-1].split())
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert policy == (os.SCHED_BATCH if has_process else os.SCHED_OTHER)
    assert niceness == (min(19, own + 10) if has_process else own)
