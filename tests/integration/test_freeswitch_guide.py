"""docs/freeswitch.md: its commands as written, on the daemon that it tells to start."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from daemons import Daemon
from freeswitch.doors import LOOKUP_UUID, Document, cdr, lookup
from hook_double import Answer
from ports import free_port
from processes import until

from authz.cli import main
from authz.config import all_settings
from authz.hooks.freeswitch.web import CDR_PATH, DIALPLAN_PATH

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "freeswitch.md").read_text(encoding="utf-8")
FAILED_DIRECTORY = "/var/log/freeswitch/json_cdr_failed"
_TRIES_MAX = 900
#: The command in the guide before which its reader makes a call.
AFTER_THE_CALL = "authz call list"
FILE = re.compile(
    r"(?:autoload_configs|dialplan/default|dialplan/public|directory|doors)/[\w/.]+\.xml"
)


def command_lines() -> list[str]:
    """Return the lines of the guide's shell blocks, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    """The daemon with the guide's settings, except for the ports."""
    directory = tmp_path / "authz-freeswitch"
    shutil.copytree(ROOT / "deploy" / "freeswitch", directory)
    monkeypatch.chdir(directory)
    monkeypatch.setenv("AUTHZ_CONFIG", str(directory / "authz.toml"))
    monkeypatch.setenv("AUTHZ_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AUTHZ_FREESWITCH__OUTBOUND_LISTEN", f"127.0.0.1:{free_port()}")
    # Commands would take over the log of the tests.
    monkeypatch.setattr("authz.log.configure", lambda **_: None)
    daemon = Daemon(tmp_path / "state")
    await daemon.start()
    await daemon.ready()
    # Some commands read the archive, which a new daemon makes after it is ready for calls.
    await until(lambda: bool(daemon.logged("archive_opened")))
    yield daemon
    await daemon.stop()


async def post(daemon: Daemon, path: str, body: bytes, media_type: str) -> Answer:
    """Send a request of a switch."""
    async with aiohttp.ClientSession() as session:
        headers = {"Content-Type": media_type}
        async with session.post(f"{daemon.hook}{path}", data=body, headers=headers) as answer:
            content_type = {"content-type": answer.headers["Content-Type"]}
            return Answer(answer.status, content_type, await answer.read())


async def call(daemon: Daemon) -> None:
    """Dial 14155550100 as user 1001 and talk for six seconds, by the HTTP doors."""
    fields = {"Hunt_Destination_Number": "14155550100", "variable_authz_account": "acme-sales"}
    form = "application/x-www-form-urlencoded"
    body = lookup(Hunt_Context="authz", **fields)
    for _ in range(_TRIES_MAX):
        document = Document(await post(daemon, DIALPLAN_PATH, body, form))
        if document.ending[0] == "transfer":
            break
        # Every process uses a published deck within a second.
        assert document.variables["authz_reason"] == "no_rate"
        await asyncio.sleep(0.1)
    assert document.ending == ("transfer", "14155550100 XML authorized")
    # 7,200 s cost 1.20, and 5 are there.
    assert document.variables["execute_on_answer"] == "sched_hangup +7199 allotted_timeout"
    record = cdr(uuid=LOOKUP_UUID, **{**document.variables, "authz_call": LOOKUP_UUID})
    answer = await post(daemon, CDR_PATH, record, "application/json")
    assert json.loads(answer.body)["legs"][0]["balance"] == "4.999"


async def test_the_guide_s_commands_work(
    daemon: Daemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "failed").mkdir()
    ran = set()
    for line in command_lines():
        if line == AFTER_THE_CALL:
            await call(daemon)
        if line.startswith("printf "):
            await asyncio.to_thread(subprocess.run, ["bash", "-c", line], check=True)
        elif line.startswith("authz ") and not line.endswith(" serve"):
            words = shlex.split(line.replace(FAILED_DIRECTORY, str(tmp_path / "failed")))[1:]
            status = await asyncio.to_thread(main.run, words)
            output = capsys.readouterr()
            assert status == 0, f"{line}: {output.err}"
            if line == "authz account balance acme-sales":
                assert "4.999" in output.out
            ran.add(words[0])
    assert ran == {
        "deck", "account", "credit", "debit", "price", "call", "audit", "freeswitch",
    }  # fmt: skip


def test_the_settings_that_the_guide_names_exist() -> None:
    known = all_settings()
    sections = {key.partition(".")[0] for key in known if "." in key}
    named = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", GUIDE))
    assert {name for name in named if name.partition(".")[0] in sections} <= set(known)


@pytest.mark.parametrize("path", sorted(set(FILE.findall(GUIDE))))
def test_the_files_that_the_guide_names_exist(path: str) -> None:
    assert (ROOT / "deploy" / "freeswitch" / path).is_file()
