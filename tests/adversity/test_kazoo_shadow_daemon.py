"""`authz serve` with deploy/kazoo/shadow.toml beside a jonny5: the roll-out's first step, whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from audit_helper import assert_clean_audit
from daemons import Daemon
from kazoo.ecallmgr import EXAMPLES, Ecallmgr
from processes import until
from rabbitmq import RabbitServer

from authz.hooks.kazoo.topology import KAZOO_ARGUMENTS
from authz.store.client import StoreClient

SHADOW = Path(__file__).resolve().parents[2] / "deploy" / "kazoo" / "shadow.toml"
URL = "amqp://guest:guest@127.0.0.1:5672"


@pytest.fixture
async def daemon(rabbit_server: RabbitServer, tmp_path: Path) -> AsyncIterator[Daemon]:
    text = SHADOW.read_text(encoding="utf-8")
    assert URL in text
    config = tmp_path / "authz.toml"
    config.write_text(text.replace(URL, rabbit_server.url), encoding="utf-8")
    daemon = Daemon(tmp_path / "state", AUTHZ_CONFIG=str(config))
    await daemon.start()
    await daemon.ready()
    await until(lambda: len(daemon.logged("kazoo_connected")) == 1)
    yield daemon
    client = await StoreClient.connect(daemon.store_url)
    await assert_clean_audit(client)
    assert await client.execute("KEYS", "authz:*:call:*") == []
    await client.close()
    assert await daemon.stop() == 0


async def test_jonny5_keeps_every_question_and_its_answers_are_compared(
    rabbit_server: RabbitServer, daemon: Daemon
) -> None:
    ecallmgr = await Ecallmgr.connect(rabbit_server.url)
    queue = await ecallmgr.channel.declare_queue(
        "jonny5_listener", auto_delete=True, arguments=dict(KAZOO_ARGUMENTS)
    )
    await queue.bind("callmgr", "authz.authorize")
    heard: list[str] = []

    async def decide(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        question = json.loads(message.body)
        heard.append(question["Msg-ID"])
        answer: dict[str, Any] = {
            **EXAMPLES["authz/authz_resp"],
            "Msg-ID": question["Msg-ID"],
            "Call-ID": question["Call-ID"],
        }
        await ecallmgr.publish("targeted", question["Server-ID"], answer)
        await ecallmgr.publish("callmgr", "authz.authorize.broadcast", answer)

    await queue.consume(decide, no_ack=True)
    answers = await asyncio.gather(
        *(ecallmgr.ask("authz/authz_req", Call_ID=f"c{number}") for number in range(20))
    )
    assert {answer["App-Name"] for answer in answers} == {"jonny5"}
    assert len(heard) == 20
    # No account is imported yet, and the shadow says so of every call.
    await until(lambda: len(daemon.logged("kazoo_shadow_differs")) >= 20)
    differences = daemon.logged("kazoo_shadow_differs")
    assert {one["cause"] for one in differences} == {"account"}
    assert {one["field"] for one in differences} >= {"is_authorized", "account_billing"}
    assert daemon.logged("kazoo_shadow_unanswered") == []
    await ecallmgr.close()
