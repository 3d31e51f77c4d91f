"""Calls as the engine asks the store for them, to be asked again without the engine.

One call is led through the real engine with every feature of an account switched on. What the
engine sent becomes a template: the same commands for any other call id of the same length.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from world import World

from authz.model import AutoRecharge, LowBalance, Settlement, SettleRequest, Trunks
from authz.store import keys
from authz.store.client import StoreClient
from authz.store.connection import pack_command
from authz.store.scripts import Script, load_scripts
from authz_ext.packing import PreparedCall

#: Ids of a call all have this form, so that one can stand for another.
CALL_ID: Final = "call-{:09d}@switch-1.example.net"
#: What the recorded call reports while it runs, and at its end: within its first grant, so that it
#: may also be settled without the report and is no overrun.
USED_SECONDS: Final = 45
SETTLED_SECONDS: Final = 53
CREDIT: Final = "1000000"
#: Every limit, alert and recharge is set, none is in the way. One trunk exists for the other
#: direction, so that trunks are counted and the call still pays per minute on every leg.
EVERYTHING: Final[dict[str, Any]] = {
    "credit_limit": "100",
    "trunks": Trunks(inbound=1),
    "max_calls": 1_000_000,
    "max_calls_by_class": {"national": 1_000_000},
    "max_calls_per_second": 100_000,
    "max_call_seconds": 86_400,
    "max_call_cost": "1000",
    "max_rate": "10",
    "daily_spend_limit": "1000000",
    "monthly_spend_limit": "1000000",
    "low_balance": LowBalance("10", 24),
    "auto_recharge": AutoRecharge("5", "100", monthly_cap="1000"),
}


class Recorded(NamedTuple):
    """One script call as it was sent."""

    script: Script
    keys: tuple[bytes, ...]
    arguments: tuple[bytes, ...]


class RecordingClient(StoreClient):
    """A store client that remembers which scripts it was asked to run."""

    __slots__ = ("recorded",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.recorded: list[Recorded] = []

    def call_prepared(
        self,
        prepared: PreparedCall,
        call_id: str,
        arguments: list[bytes],
        deadline_ms: int = 1_000,
    ) -> Awaitable[Any]:
        """Run a script about a call and remember it."""
        script_keys = tuple(prepared.keys(call_id))
        self.recorded.append(Recorded(prepared.script, script_keys, tuple(arguments)))
        return super().call_prepared(prepared, call_id, arguments, deadline_ms)


class Template:
    """A recorded script call as packed bytes in which another call id can be put."""

    def __init__(self, recorded: Recorded, account: str, call_id: str) -> None:
        script = recorded.script
        self.recorded = recorded
        self._packed = pack_command(
            (b"EVALSHA", script.sha1, len(recorded.keys), *recorded.keys, *recorded.arguments)
        )
        self._account = account
        self._call_id = call_id.encode()
        self._digest = keys.call_digest(account, call_id)

    def command(self, call_id: str) -> bytes:
        """Return the packed command for another call."""
        packed = self._packed.replace(self._call_id, call_id.encode())
        return packed.replace(self._digest, keys.call_digest(self._account, call_id))


class CallTemplates(NamedTuple):
    """The three script calls of one account's calls, and where their records are."""

    account: str
    tag: str
    names: tuple[str, ...]
    authorize: Template
    reserve: Template
    settle: Template

    def commands(self, kind: str, call_ids: Sequence[str]) -> list[bytes]:
        """Return the packed commands of one kind for many calls."""
        template: Template = getattr(self, kind)
        return [template.command(call_id) for call_id in call_ids]


async def make_chain(world: World, names: Sequence[str], **config: Any) -> None:
    """Create a chain of accounts, leaf first, with everything on and plenty of credit."""
    for place in range(len(names) - 1, -1, -1):
        await world.account(
            names[place],
            CREDIT,
            **{
                **EVERYTHING,
                "parent": names[place + 1] if place + 1 < len(names) else None,
                "deck": "retail" if place == 0 else "wholesale",
                **config,
            },
        )


async def record_call(world: World, client: RecordingClient, names: Sequence[str]) -> CallTemplates:
    """Lead one call of `names[0]` through the engine and return its templates."""
    account, call_id = names[0], CALL_ID.format(0)
    await world.granted(call_id, account=account)
    client.recorded.clear()
    # Once more, with the chain now in the cache, as nearly every call is authorized.
    await world.settle(call_id, SETTLED_SECONDS, account=account)
    call_id = CALL_ID.format(1)
    client.recorded.clear()
    await world.granted(call_id, account=account)
    await world.reserve(call_id, USED_SECONDS, account=account)
    answer = await world.engine.settle(
        SettleRequest(
            call_id=call_id,
            account=account,
            seconds=SETTLED_SECONDS,
            hangup_cause="NORMAL_CLEARING",
        )
    )
    assert isinstance(answer, Settlement), answer
    by_name = {one.script.name: Template(one, account, call_id) for one in client.recorded}
    tag = await world.engine.context.directory.tag_of(account)
    assert tag is not None
    return CallTemplates(
        account, tag, tuple(names), by_name["authorize"], by_name["reserve"], by_name["settle"]
    )


async def record_chains(url: str, chains: Sequence[Sequence[str]]) -> list[CallTemplates]:
    """Create these chains on the store at `url` and return the templates of each one's calls."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as directory:
        client = await RecordingClient.connect(url, scripts=load_scripts().values())
        world = World(client, Path(directory))
        try:
            templates = []
            for names in chains:
                await make_chain(world, names)
                templates.append(await record_call(world, client, names))
            return templates
        finally:
            await world.close()
