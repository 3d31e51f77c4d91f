"""A hostile or unlucky Kazoo platform at `authz serve`: floods, nonsense, and kills in mid-call.

Whatever happens: an answer for every question, nothing sold twice, nothing lost, a clean audit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio
from daemons import Daemon
from kazoo.cases import RATES, US
from kazoo.ecallmgr import EXAMPLES
from kazoo.site import KazooSite, kazoo_site
from processes import is_alive, until
from rabbitmq import RabbitServer

from authz.hooks.kazoo.encoding import encode_key, to_gregorian

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESELLER: Final = "9a8b7c6d5e4f43210fedcba987654321"
#: Each attack has an account of its own; that of the contract's examples gets the nonsense.
FLOODED: Final = "f1" * 16
STRANGE: Final = "f2" * 16
KILLED: Final = "f3" * 16
EXAMPLE: Final = "4f1c0de2a9b84d7e9a5b6c7d8e9f0a1b"
_CREDITS: Final = {FLOODED: "0.2", STRANGE: "10", KILLED: "100", EXAMPLE: "10"}
_DOCUMENTS: Final = [
    {"_id": RESELLER, "pvt_type": "account"},
    *({"_id": one, "pvt_type": "account", "pvt_reseller_id": RESELLER} for one in _CREDITS),
]
#: A thousand questions at once wait for each other on two busy cores: no test of deadlines.
PATIENCE: Final = {"AUTHZ_STORE__DECISION_DEADLINE_MS": "10000"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(
    rabbit_node: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[KazooSite]:
    """One daemon for all attacks, with a reseller that has money for all of them."""
    await rabbit_node.reset()
    directory = tmp_path_factory.mktemp("attacks")
    async with kazoo_site(rabbit_node, directory, **PATIENCE) as site:
        await site.import_rates(directory, RATES)
        await site.import_documents(directory, _DOCUMENTS)
        await site.equip(RESELLER, "wholesale", "1000")
        for account, credit in _CREDITS.items():
            await site.equip(account, "retail", credit)
        yield site


def question(site: KazooSite, account: str, call_id: str) -> dict[str, Any]:
    """Return what ecallmgr asks about a channel of an account."""
    variables = {"Account-ID": account, "Reseller-ID": RESELLER, "Resource-ID": "carrier",
                 "E164-Destination": US}  # fmt: skip
    return site.ecallmgr.question("authz/authz_req", Call_ID=call_id, Custom_Channel_Vars=variables)


async def ask(site: KazooSite, document: dict[str, Any]) -> dict[str, Any]:
    """Ask, and return the answer."""
    waiting = site.ecallmgr.expect(document["Msg-ID"])
    await site.ecallmgr.publish("callmgr", "authz.authorize", document)
    return await asyncio.wait_for(waiting, 20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(site: KazooSite, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    """Another host's daemon on the same store and queues."""
    environ = {"AUTHZ_STORE__URL": site.daemon.store_url, "AUTHZ_CONFIG": str(site.config)}
    daemon = Daemon(tmp_path_factory.mktemp("other"), **environ, **PATIENCE)
    await daemon.start()
    await daemon.ready()
    await until(lambda: len(daemon.logged("kazoo_connected")) == 2)
    yield daemon
    assert await daemon.stop() == 0


async def test_a_thousand_questions_at_once_and_money_for_ten(
    site: KazooSite, other: Daemon
) -> None:
    # Kazoo's queue drops its oldest beyond 100; a host takes 200 at a time.
    waiting = asyncio.Semaphore(250)

    async def ask_in_turn(number: int) -> dict[str, Any]:
        async with waiting:
            return await ask(site, question(site, FLOODED, f"c{number}"))

    answers = await asyncio.gather(*map(ask_in_turn, range(1_000)))
    paid = [one for one in answers if one["Is-Authorized"]]
    assert len(paid) == 10
    for answer in paid:
        await site.tell("CHANNEL_DESTROY", answer, Billing_Seconds=60)
    await site.until_no_calls(FLOODED)
    assert await site.balance_micros(FLOODED) == 0
    charged = {answer["Call-ID"] for answer in paid}
    await site.until_charged(FLOODED, {call_id: [20_000] for call_id in charged})
    charges = await site.charges(RESELLER)
    assert [charges[call_id] for call_id in charged] == [[11_000]] * 10
    await site.audit()


_NONSENSE: Final[tuple[Any, ...]] = (
    None, 0, -1, 1.5, 10**30, True, "", " ", "é\x00", "../..", "x" * 100_000, [], ["x"], {},
    {"a": {"b": []}}, [[[[[[[[]]]]]]]],
)  # fmt: skip
_NONSENSES: Final = 800


def nonsense(rng: random.Random) -> tuple[str, str, dict[str, Any]]:
    """Return exchange, routing key and a message of Kazoo's in which one field is nonsense."""
    name = rng.choice([one for one in EXAMPLES if one.startswith(("authz/", "rate/", "call/"))])
    document: dict[str, Any] = json.loads(json.dumps(EXAMPLES[name]))
    within = document
    if "Custom-Channel-Vars" in document and rng.random() < 0.5:
        within = document["Custom-Channel-Vars"]
    within[rng.choice(list(within))] = rng.choice(_NONSENSE)
    keys = {
        "authz/authz_req": "authz.authorize",
        "authz/authz_resp": "authz.authorize.broadcast",
        "authz/balance_check_req": "authz.balance_check",
        "rate/req": "rate.req",
        "rate/resp": "rate.resp.broadcast",
    }
    if name in keys:
        return "callmgr", keys[name], document
    event = name.rpartition(" ")[2]
    return "callevt", f"call.{event}.{encode_key(str(document.get('Call-ID')))[:80]}", document


async def test_nonsense_ends_no_process_and_moves_no_money_astray(
    site: KazooSite, other: Daemon, rng: random.Random
) -> None:
    daemons = (site.daemon, other)
    agents = [daemon.child("agents") for daemon in daemons]
    connects = len(site.daemon.logged("kazoo_connected"))
    for _ in range(_NONSENSES):
        exchange, key, document = nonsense(rng)
        await site.ecallmgr.publish(exchange, key, document)
    deep = b'{"Event-Category":"authz","Event-Name":"authz_req","Msg-ID":"m","Call-ID":' + (
        b"[" * 400_000
    )
    for body in (deep, b"\xff" * 1_000_000, b"0" * 3_000_000, b'"' + b"\\u0000" * 100_000 + b'"'):
        for key in ("authz.authorize", "authz.balance_check", "rate.req"):
            await site.ecallmgr.publish("callmgr", key, body)
    answer = await ask(site, question(site, EXAMPLE, "c1"))
    assert answer["Is-Authorized"] is True
    await site.tell("CHANNEL_DESTROY", answer, Billing_Seconds=61)
    await until_listed(site, EXAMPLE, "c1", 40_000)
    assert all(map(is_alive, agents))
    assert [daemon.child("agents") for daemon in daemons] == agents
    assert len(site.daemon.logged("kazoo_connected")) == connects
    await site.audit()


async def until_listed(site: KazooSite, account: str, call_id: str, micros: int) -> None:
    """Return when an account was charged so for a call, once."""
    for _ in range(1_800):
        charges = (await site.charges(account)).get(call_id)
        if charges is not None:
            break
        await asyncio.sleep(0.05)
    assert charges == [micros]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Caller-ID-Number", 4155550100), ("Caller-ID-Number", ["x"]), ("Request", 5),
        ("Call-Direction", 5), ("Other-Leg-Call-ID", ["x"]), ("From", {}), ("App-Name", 5),
        ("Node", {"a": 1}), ("Custom-Application-Vars", "x"), ("Custom-Channel-Vars", ["x"]),
        ("Custom-Channel-Vars", None), ("Custom-Channel-Vars", "x"),
    ],
)  # fmt: skip
async def test_no_odd_field_leaves_a_question_unanswered(
    site: KazooSite, other: Daemon, field: str, value: Any
) -> None:
    # Without an answer ecallmgr lets a channel through, and nobody pays for it.
    call_id = f"odd-{field}-{value}".replace(" ", "")
    document = {**question(site, STRANGE, call_id), field: value}
    answer = await ask(site, document)
    is_attributed = field != "Custom-Channel-Vars"
    assert answer["Is-Authorized"] is is_attributed
    if is_attributed:
        odd = {} if field == "Call-Direction" else {field.replace("-", "_"): value}
        await site.tell("CHANNEL_DESTROY", answer, Billing_Seconds=61, **odd)
        await until_listed(site, STRANGE, call_id, 40_000)


async def test_strange_ids_clocks_and_durations_are_charged_exactly(
    site: KazooSite, other: Daemon
) -> None:
    now = to_gregorian(int(time.time()))
    lives = {
        "a.b@10.0.0.1:5060": (now, 61, 40_000),
        "100%25~!$&'()*+,;=:@/?#[]": (now + 7_200, "61", 40_000),
        "c" * 128: (now - 7_200, 61, 40_000),
        "0": (0, 61, 40_000),
        "-": (-1, 61, 40_000),
        "*.#": (10**15, 61, 40_000),
        "text": (str(now), "0", 0),
    }
    for call_id, (timestamp, seconds, _) in lives.items():
        answer = await ask(site, question(site, STRANGE, call_id))
        assert answer["Is-Authorized"] is True, call_id
        for name in ("CHANNEL_CREATE", "CHANNEL_ANSWER"):
            await site.tell(name, answer, Timestamp=timestamp)
        await site.tell("CHANNEL_DESTROY", answer, Timestamp=timestamp, Billing_Seconds=seconds)
    for call_id, (_, _, micros) in lives.items():
        await until_listed(site, STRANGE, call_id, micros)
    # What no call can have lasted is told of and not charged; a better word may still come.
    answer = await ask(site, question(site, STRANGE, "huge"))
    await site.tell("CHANNEL_DESTROY", answer, Billing_Seconds=10**12)

    def not_settled() -> list[str]:
        told = (daemon.logged("call_not_settled") for daemon in (site.daemon, other))
        return [event["call_id"] for events in told for event in events]

    await until(lambda: "huge" in not_settled())
    await site.tell("CHANNEL_DESTROY", answer, Billing_Seconds=61)
    await until_listed(site, STRANGE, "huge", 40_000)
    # No call of ours can bear such an id; nobody is let through by it.
    for call_id in ("with blank", "é", "", "x" * 1_000, "new\nline"):
        assert (await ask(site, question(site, STRANGE, call_id)))["Is-Authorized"] is False
    await site.until_no_calls(STRANGE)
    await site.audit()


_CALLS: Final = 8
_SECONDS: Final = 61


class Platform:
    """Calls through a site in which something dies at any moment."""

    def __init__(self, site: KazooSite, other: Daemon, rng: random.Random) -> None:
        self._site = site
        self._daemons = (site.daemon, other)
        self._rng = rng
        self.ended: list[str] = []

    async def call(self, call_id: str) -> None:
        """Live a whole call: asked until answered, as a platform with patience would."""
        await asyncio.sleep(self._rng.random())
        answer = None
        while answer is None:
            with contextlib.suppress(TimeoutError):
                asked = question(self._site, KILLED, call_id)
                waiting = self._site.ecallmgr.expect(asked["Msg-ID"])
                await self._site.ecallmgr.publish("callmgr", "authz.authorize", asked)
                answer = await asyncio.wait_for(asyncio.shield(waiting), 3)
        if not answer["Is-Authorized"]:
            # The store was away: denied by policy, and told so.
            return
        await self._site.tell("CHANNEL_ANSWER", answer)
        await asyncio.sleep(self._rng.random() * 2)
        for _ in range(self._rng.randint(1, 3)):
            await self._site.tell("CHANNEL_DESTROY", answer, Billing_Seconds=_SECONDS)
        self.ended.append(call_id)

    async def kill(self, what: str) -> None:
        """Have something die, and come back."""
        daemon = self._rng.choice(self._daemons)
        await asyncio.sleep(self._rng.random() * 2)
        if what == "agents":
            # One that was killed just now may not have a successor yet.
            await until(lambda: is_alive(daemon.child("agents")))
            os.kill(daemon.child("agents"), signal.SIGKILL)
        elif what == "store":
            daemon = self._site.daemon
            await daemon.kill_store()
        else:
            await daemon.kill()
            await daemon.start()
        await daemon.ready()


async def test_kills_at_random_moments_lose_no_call_and_charge_none_twice(
    site: KazooSite, other: Daemon, rng: random.Random
) -> None:
    platform = Platform(site, other, rng)
    deaths = ["agents", "store", "daemon", rng.choice(("agents", "daemon"))]
    rng.shuffle(deaths)
    for number, death in enumerate(deaths):
        await asyncio.gather(
            platform.kill(death),
            *(platform.call(f"r{number}.{one}@fs") for one in range(_CALLS)),
        )
    charged = {call_id: [40_000] for call_id in platform.ended}
    assert len(charged) >= _CALLS
    await site.until_charged(KILLED, charged)
    charges = await site.charges(RESELLER)
    assert [charges[call_id] for call_id in charged] == [[22_000]] * len(charged)
    await site.until_no_calls(KILLED)
    assert await site.balance_micros(KILLED) == 100_000_000 - 40_000 * len(charged)
    await site.audit()
