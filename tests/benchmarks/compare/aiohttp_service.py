"""The same service as one would first write it: aiohttp handlers, redis-py, the same engine.

`python -m benchmarks.compare.aiohttp_service STORE_URL DIRECTORY` prints its port once it serves.
Everything between the two libraries is authz's own code, scripts included, so that the difference
to a hook worker is what its HTTP protocol and its store client are worth.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec
import redis.asyncio
import uvloop
from aiohttp import web

from authz.config import Settings
from authz.engine.engine import Engine
from authz.engine.resend import ResendWindow
from authz.engine.spool import Spool
from authz.model import AuthorizeRequest, ReserveRequest, SettleRequest
from authz.numbers import default_rules
from authz.rating.registry import DeckRegistry
from authz.store.client import StoreClient
from authz.store.replies import read_answer
from authz.store.scripts import Script, load_scripts
from authz_ext.packing import PreparedCall

_CONNECTIONS: Final = 64
_encode = msgspec.json.Encoder().encode
_Request = TypeVar("_Request", bound=msgspec.Struct)


class RedisPyClient:
    """What the engine needs of a store client, by redis-py: a pool and registered scripts."""

    connected = True

    def __init__(self, url: str) -> None:
        # Without a bound that waits, redis-py refuses commands in a burst.
        pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS)
        self._redis = redis.asyncio.Redis(connection_pool=pool)
        self._scripts = {
            script.sha1: self._redis.register_script(script.source)
            for script in load_scripts().values()
        }

    async def execute(self, *command: bytes | str | int, deadline_ms: int = 1_000) -> Any:
        """Send one command and return its reply."""
        async with asyncio.timeout(deadline_ms / 1000):
            return await self._redis.execute_command(*command)

    async def call_script(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | int],
        deadline_ms: int = 1_000,
    ) -> Any:
        """Run a script and return its answer."""
        async with asyncio.timeout(deadline_ms / 1000):
            return read_answer(await self._scripts[script.sha1](keys=keys, args=arguments))

    async def call_prepared(
        self,
        prepared: PreparedCall,
        call_id: str,
        arguments: list[bytes],
        deadline_ms: int = 1_000,
    ) -> Any:
        """Run a script about a call and return its answer."""
        script_keys = prepared.keys(call_id)
        return await self.call_script(prepared.script, script_keys, arguments, deadline_ms)

    def on_run_id_change(self, callback: Callable[[str, str], None]) -> None:
        """Ignore it: redis-py does not tell whether another server answers."""


class _NothingToResend:
    """Stands in for the resend window, which needs replies in the order of one connection."""

    def observe(self, tag: str, sequence: int) -> None:
        """Ignore how far the ledger has come."""

    def remember(self, repeat: Callable[[], Awaitable[None]]) -> None:
        """Keep nothing: a first version would not either."""

    async def close(self) -> None:
        """Nothing is kept."""


def _endpoint(
    request_type: type[_Request], ask: Callable[[_Request], Awaitable[Any]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    decode = msgspec.json.Decoder(request_type).decode

    async def handle(request: web.Request) -> web.Response:
        answer = await ask(decode(await request.read()))
        return web.Response(body=_encode(answer), content_type="application/json")

    return handle


async def serve(store_url: str, directory: Path) -> None:
    """Serve until cancelled."""
    settings = Settings(state_dir=directory)
    decks = DeckRegistry(await StoreClient.connect(store_url), directory / "decks")
    await decks.start()
    client = cast("StoreClient", RedisPyClient(store_url))
    spool = Spool.open(directory / "spool", settings.spool.bytes_max)
    engine = Engine(client, decks, default_rules(), settings, spool)
    engine.context.resend = cast("ResendWindow", _NothingToResend())
    app = web.Application()
    app.router.add_post("/v1/authorize", _endpoint(AuthorizeRequest, engine.authorize))
    app.router.add_post("/v1/reserve", _endpoint(ReserveRequest, engine.reserve))
    app.router.add_post("/v1/settle", _endpoint(SettleRequest, engine.settle))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], Path(sys.argv[2])))
