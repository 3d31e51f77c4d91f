"""FreeSWITCH's HTTP doors while the store hangs and daemons die: no call lost, none paid twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
import uuid
from pathlib import Path

import aiohttp
from daemons import Daemon
from freeswitch.doors import Document, cdr, lookup
from hook_double import Answer
from processes import until
from test_store_away import STOPPED_SECONDS, stopped, worker_told
from traffic import EMERGENCY, SUB, TOLLFREE, UK, US, Life, Start, finish

from authz.hooks.freeswitch.web import CDR_PATH, DIALPLAN_PATH

CALLS = 80
LINES = 8
#: As in deploy/freeswitch: the module waits so long for an answer, and tries once more.
TIMEOUT_SECONDS = 3
RETRY_SECONDS = 0.2


class FreeSwitch:
    """What the two modules do: ask on new connections, fall back, retry once, keep files."""

    def __init__(self, daemon: Daemon, directory: Path) -> None:
        self.daemon = daemon
        self.directory = directory
        directory.mkdir()

    async def ask(self, life: Life) -> Document | None:
        """Look a call up; None leads to the static dialplan, which refuses."""
        body = lookup(
            Hunt_Context="authz",
            Hunt_Destination_Number=life.to,
            Unique_ID=life.call_id,
            variable_authz_account=SUB,
        )
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            answer = await self._post(DIALPLAN_PATH, body, "application/x-www-form-urlencoded")
            return Document(answer)
        return None

    async def end(self, life: Life, document: Document | None) -> None:
        """Report a call's end, or keep the record in a file."""
        marks = {} if document is None else document.variables
        if "authz_call" in marks:
            marks["authz_call"] = life.call_id
        ended_us = int(time.time() * 1_000_000)
        record = cdr(
            uuid=life.call_id,
            billmsec=str(life.seconds * 1_000 - (300 if life.seconds else 0)),
            end_uepoch=str(ended_us),
            answer_uepoch=str(ended_us - life.seconds * 1_000_000),
            **{"authz_account": SUB, **marks},
        ).replace(b'"context": "public"', b'"context": "authz"')
        record = record.replace(
            b'"destination_number": "3001"', b'"destination_number": "%b"' % life.to.encode()
        )
        life.was_placed = life.is_acknowledged = True
        for pause_seconds in (RETRY_SECONDS, 0):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                if (await self._post(CDR_PATH, record, "application/json")).status == 200:
                    return
            await asyncio.sleep(pause_seconds)
        (self.directory / f"{life.call_id}.cdr.json").write_bytes(record)

    async def live(self, life: Life) -> None:
        """Place a call, or be refused."""
        document = await self.ask(life)
        await asyncio.sleep(0.02)
        if document is None or document.ending[0] != "respond":
            life.seconds = 0 if document is None else life.seconds
            await self.end(life, document)

    async def _post(self, path: str, body: bytes, media_type: str) -> Answer:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        headers = {"Content-Type": media_type}
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.post(f"{self.daemon.hook}{path}", data=body) as answer,
        ):
            content_type = {"content-type": answer.headers["Content-Type"]}
            return Answer(answer.status, content_type, await answer.read())

    async def import_records(self) -> str:
        """Book what was kept in files; return what the command says."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "authz", "freeswitch", "import-cdrs", str(self.directory)),
            env={"AUTHZ_STATE_DIR": str(self.daemon.state_dir)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output
        return output.decode()


async def test_what_freeswitch_is_told_while_the_store_hangs(start: Start, tmp_path: Path) -> None:
    daemon, api = await start()
    switch = FreeSwitch(daemon, tmp_path / "failed")
    running, refused = Life("running", UK, 61), Life("refused", US, 0)
    unknown = Life("let-through", UK, 45)
    exempt = [Life("free", TOLLFREE, 30), Life("help", EMERGENCY, 30)]
    granted = await switch.ask(running)
    assert granted is not None
    assert granted.ending[0] == "transfer"
    with stopped(daemon.store_pid):
        document = await switch.ask(refused)
        assert document is not None
        assert document.actions == [
            ("set", "authz_reason=store_unavailable"),
            ("respond", "503 Service Unavailable"),
        ]
        for life in exempt:
            passed = await switch.ask(life)
            assert passed is not None
            assert passed.ending[0] == "transfer"
            await switch.end(life, passed)
        await switch.end(running, granted)
        await switch.end(running, granted)
        # A static dialplan that does not refuse; its call is paid all the same.
        await switch.end(unknown, None)
        await asyncio.sleep(STOPPED_SECONDS)
    await until(lambda: worker_told(daemon, "store_up"))
    assert list(switch.directory.iterdir()) == [], "all records were safe"
    for life in (running, unknown, *exempt):
        await switch.end(life, granted if life is running else None)
    await finish(daemon, api, daemon.store_url, [running, unknown, refused, *exempt])


async def test_daemons_die_and_records_are_imported(
    start: Start, tmp_path: Path, rng: random.Random
) -> None:
    daemon, api = await start()
    switch = FreeSwitch(daemon, tmp_path / "failed")
    places = rng.choices([US, UK, TOLLFREE, EMERGENCY], [8, 8, 1, 1], k=CALLS)
    lives = [
        Life(str(uuid.UUID(int=rng.getrandbits(128))), to, rng.choice((0, 1, 30, 59, 60, 61)))
        for to in places
    ]
    waiting = list(lives)
    struck_at = rng.randrange(CALLS // 2, CALLS - LINES)

    async def line() -> None:
        while waiting:
            await switch.live(waiting.pop())

    async def strike() -> None:
        await until(lambda: len(waiting) <= struck_at)
        await daemon.kill()
        if rng.random() < 0.5:
            await daemon.kill_store()
        await asyncio.sleep(rng.random())
        await daemon.start()

    await asyncio.gather(strike(), *(line() for _ in range(LINES)))
    await daemon.ready()
    assert list(switch.directory.iterdir()), "some records must have been kept in files"
    await switch.import_records()
    assert [path for path in switch.directory.iterdir() if path.is_file()] == []
    await finish(daemon, api, daemon.store_url, lives)
