"""Shadow mode beside a jonny5 on a real RabbitMQ: nothing is answered, held or written."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from audit_helper import assert_clean_audit
from kazoo.ecallmgr import Ecallmgr
from kazoo.stage import running, settings_for
from processes import until
from rabbitmq import RabbitServer
from world import World

from authz import log, meters
from authz.hooks.kazoo.broker import KazooBroker
from authz.hooks.kazoo.serving import broker_users
from authz.hooks.kazoo.shadow import Shadow

CUSTOMER = "4f1c0de2a9b84d7e9a5b6c7d8e9f0a1b"
RESELLER = "9a8b7c6d5e4f43210fedcba987654321"
COMPARED = meters.counters("authz_kazoo_shadow_total")


class Stage:
    """authz in shadow mode, an ecallmgr, and what was logged of differences."""

    def __init__(self, world: World, ecallmgr: Ecallmgr, shadow: Shadow) -> None:
        self.world = world
        self.ecallmgr = ecallmgr
        self.shadow = shadow
        self.logged: list[dict[str, Any]] = []

    async def ask(self, example: str, key: str, **fields: Any) -> str:
        """Publish a question and return its id."""
        question = self.ecallmgr.question(example, **fields)
        await self.ecallmgr.publish("callmgr", key, question)
        return str(question["Msg-ID"])

    async def answer(self, example: str, key: str, msg_id: str, **fields: Any) -> None:
        """Broadcast an answer as jonny5 or hotornot."""
        document = self.ecallmgr.question(example, Msg_ID=msg_id, **fields)
        await self.ecallmgr.publish("callmgr", key, document)

    async def decide(self, msg_id: str, **fields: Any) -> None:
        """Have jonny5 decide."""
        variables = {"Account-Trunk-Usage": "0/0/0/0/0/0", "Reseller-Trunk-Usage": "0/0/0/0/0/0"}
        known = {"Custom_Channel_Vars": variables, **fields}
        await self.answer("authz/authz_resp", "authz.authorize.broadcast", msg_id, **known)


@pytest.fixture
async def stage(
    rabbit_server: RabbitServer,
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    world = await World.start(store_url, tmp_path)
    await world.account(RESELLER, "100", deck="wholesale")
    await world.account(CUSTOMER, "10", parent=RESELLER, deck="retail")
    ecallmgr = await Ecallmgr.connect(rabbit_server.url)
    settings = settings_for(rabbit_server.url, mode="shadow")
    (shadow,) = broker_users(world.engine, settings, "test")
    assert isinstance(shadow, Shadow)
    broker = KazooBroker("local", (rabbit_server.url,), settings)
    broker.use(shadow)
    stage = Stage(world, ecallmgr, shadow)
    write = log.event

    def keep(name: str, **fields: Any) -> None:
        if name.startswith("kazoo_shadow"):
            stage.logged.append({"name": name, **fields})
        write(name, **fields)

    monkeypatch.setattr(log, "event", keep)
    async with running(broker):
        yield stage
    await ecallmgr.close()
    await assert_clean_audit(world.client)
    await world.close()


def counted(subject: str, cause: str) -> int:
    return COMPARED[subject, cause].value


async def test_equal_decisions_are_counted_and_leave_no_trace(stage: Stage) -> None:
    before = counted("authorize", "same")
    msg_id = await stage.ask("authz/authz_req", "authz.authorize")
    await stage.decide(msg_id)
    await until(lambda: counted("authorize", "same") == before + 1)
    assert stage.logged == []
    # jonny5's own is the only answer that anybody got, and nothing is held.
    assert (await stage.ecallmgr.broadcasts.get())["App-Name"] == "jonny5"
    assert stage.ecallmgr.broadcasts.empty()
    assert not stage.ecallmgr.expect(msg_id).done()
    assert await stage.world.client.execute("KEYS", "authz:*:call:*") == []


async def test_differences_are_told_whichever_answer_is_first(stage: Stage) -> None:
    for order in ("theirs first", "ours first"):
        msg_id = secrets.token_hex(8)
        refusal = {"Is_Authorized": False, "Account_Billing": "limits_enforced",
                   "Reseller_Billing": "limits_enforced"}  # fmt: skip
        if order == "theirs first":
            await stage.decide(msg_id, **refusal)
        await stage.ask("authz/authz_req", "authz.authorize", Msg_ID=msg_id)
        if order == "ours first":
            await asyncio.sleep(0.2)
            await stage.decide(msg_id, **refusal)
        await until(lambda: len(stage.logged) == 3)
        fields = [(one["field"], one["ours"], one["theirs"]) for one in stage.logged]
        assert fields[0] == ("is_authorized", "true", "false")
        assert fields[1] == ("account_billing", "per_minute", "limits_enforced")
        assert {one["cause"] for one in stage.logged} == {"credit", "defect"}
        stage.logged.clear()


async def test_rates_are_compared_too(stage: Stage) -> None:
    before = counted("rate", "same")
    msg_id = await stage.ask("rate/req", "rate.req")
    same = {"Rate": "137", "Rate_Increment": 1, "Rate_Minimum": "1", "Rate_NoCharge_Time": 0}
    await stage.answer("rate/resp", "rate.resp.broadcast", msg_id, **same)
    await until(lambda: counted("rate", "same") == before + 1)
    msg_id = await stage.ask("rate/req", "rate.req")
    await stage.answer("rate/resp", "rate.resp.broadcast", msg_id, **same | {"Rate": "185"})
    await until(lambda: len(stage.logged) == 1)
    one = stage.logged[0]
    assert (one["field"], one["ours"], one["theirs"]) == ("rate", "137", "185")
    for theirs in (10, 10.0, "10", 12.5):
        msg_id = await stage.ask("rate/req", "rate.req")
        discount = {"Discount_Percentage": theirs}
        await stage.answer("rate/resp", "rate.resp.broadcast", msg_id, **same | discount)
    await until(lambda: len(stage.logged) == 5)
    found = [(one["field"], one["ours"], one["theirs"]) for one in stage.logged[1:]]
    assert [theirs for *_, theirs in found] == ["10", "10", "10", "12.5"]
    assert {words[:2] for words in found} == {("discount_percentage", "0")}


async def test_what_jonny5_leaves_unanswered_is_told_after_a_while(stage: Stage) -> None:
    msg_id = await stage.ask("authz/authz_req", "authz.authorize")
    await asyncio.sleep(0.2)
    stage.shadow.expire(asyncio.get_running_loop().time() - 30)
    assert stage.logged == []
    stage.shadow.expire(asyncio.get_running_loop().time())
    assert [(one["name"], one["msg_id"]) for one in stage.logged] == [
        ("kazoo_shadow_unanswered", msg_id)
    ]
    # Late answers and such as nobody asked for are forgotten in their turn, without a word.
    await stage.decide(msg_id)
    await asyncio.sleep(0.2)
    stage.shadow.expire(asyncio.get_running_loop().time())
    assert len(stage.logged) == 1


async def test_our_own_answers_are_no_witness(stage: Stage) -> None:
    before = counted("authorize", "same")
    msg_id = await stage.ask("authz/authz_req", "authz.authorize")
    await stage.decide(msg_id, App_Name="authz", Is_Authorized=False)
    await stage.decide(msg_id)
    await until(lambda: counted("authorize", "same") == before + 1)
    assert stage.logged == []
