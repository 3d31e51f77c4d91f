"""The store client of the hot path: one pipelined connection that looks after itself.

Commands are never repeated behind the caller's back, but for a script the server has forgotten.
While the store is away (lost connection, or three deadlines missed in a row) every command fails
at once with `NotExecuted`, and the client reconnects or probes until it is back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Never, Self

from authz import log, meters
from authz.errors import InvariantError, NotExecuted, OutcomeUnknown, StoreError
from authz.store.connection import Connection, pack_command
from authz.store.handshake import open_connection
from authz.store.health import StoreHealth
from authz.store.url import StoreAddress, parse_store_url
from authz_ext.packing import pack_script_call

if TYPE_CHECKING:
    from authz.store.scripts import Script
    from authz_ext.packing import PreparedCall
    from authz_ext.wire import Command

#: A store that counts as down is asked this often, and has to answer within the same time.
PROBE_INTERVAL_MS: Final = 200
#: After so many probes in a row the connection itself is given up: it may lead nowhere.
_PROBES_MAX: Final = 15
_BACKOFF_SECONDS_MIN: Final = 0.05
_BACKOFF_SECONDS_MAX: Final = 2.0
#: How long a connection that is no longer wanted may take to answer what is in flight.
_FINISH_SECONDS_MAX: Final = 1.0

_PING: Final = pack_command(("PING",))

_CONNECTIONS: Final = meters.counter("authz_store_connections_total")
_NOT_SENT: Final = meters.counter("authz_store_errors_total", "not_sent")

#: Told when another server process answers than before: (previous run id, present one).
RunIdCallback = Callable[[str, str], None]


def _moment_in(wait_ms: int) -> int:
    return meters.now_ns() + wait_ms * 1_000_000


class StoreClient:
    """A client of one Redis or Valkey server; made by `connect`, ended by `close`.

    Every command raises NotExecuted (it certainly changed nothing), OutcomeUnknown (it may or
    may not have been executed) or StoreReplyError (the store refused it for good).
    """

    __slots__ = (
        "_address",
        "_calls_again",
        "_client_name",
        "_closing",
        "_connect_timeout_ms",
        "_connection",
        "_health",
        "_live",
        "_loading",
        "_run_id_callbacks",
        "_scripts",
        "_task",
        "_trouble",
        "run_id",
    )

    def __init__(
        self,
        address: StoreAddress,
        *,
        scripts: Iterable[Script] = (),
        client_name: str = "authz",
        connect_timeout_ms: int = 2_000,
    ) -> None:
        self._address = address
        self._client_name = client_name
        self._connect_timeout_ms = connect_timeout_ms
        self._scripts = {script.sha1: script for script in scripts}
        self._health = StoreHealth(self._went_down)
        #: The open connection, if any, and the same while it may be used.
        self._connection: Connection | None = None
        self._live: Connection | None = None
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._calls_again: set[asyncio.Task[None]] = set()
        self._run_id_callbacks: list[RunIdCallback] = []
        self._task: asyncio.Task[None] | None = None
        self._trouble = asyncio.Event()
        self._closing = False
        #: The run id of the server that answered last, None before the first.
        self.run_id: str | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        scripts: Iterable[Script] = (),
        client_name: str = "authz",
        connect_timeout_ms: int = 2_000,
        must_answer: bool = True,
    ) -> Self:
        """Connect to the store at `url` and load the scripts.

        Raises ConfigError when the URL, the credentials or the server are wrong, and NotExecuted
        when the store cannot be reached; without `must_answer` the latter is not an error: the
        client goes on trying, and its commands fail until it succeeds.
        """
        client = cls(
            parse_store_url(url),
            scripts=scripts,
            client_name=client_name,
            connect_timeout_ms=connect_timeout_ms,
        )
        try:
            await client._open()
        except NotExecuted as error:
            if must_answer:
                raise
            log.event("store_unreachable", level="warning", error=error)
        client._task = asyncio.create_task(client._maintain(), name="store-client")
        return client

    @property
    def connected(self) -> bool:
        """Whether commands are taken: connected, greeted, and not counted as down."""
        return self._live is not None and self._live.refusal is None

    @property
    def in_flight(self) -> int:
        """How many commands are sent and not answered."""
        return 0 if self._connection is None else self._connection.in_flight

    @property
    def queued(self) -> int:
        """How many commands wait to be sent."""
        return 0 if self._connection is None else self._connection.queued

    @property
    def address(self) -> str:
        """The store's address for messages, without secrets."""
        return self._address.display

    def on_run_id_change(self, callback: RunIdCallback) -> None:
        """Call `callback(previous, present)` when another server process answers than before.

        It is called on the event loop, once the new connection takes commands.
        """
        self._run_id_callbacks.append(callback)

    async def execute(self, *command: bytes | str | int, deadline_ms: int = 1_000) -> Any:
        """Send one command and return its reply as it came (bytes, int, list, None).

        An error inside a list (of EXEC, or of a script) stays a value of that list.
        """
        return await self._submit(pack_command(command), _moment_in(deadline_ms))

    def call_script(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | int],
        deadline_ms: int = 1_000,
    ) -> Awaitable[Any]:
        """Run a script by its SHA-1; await its answer. All keys lie in one slot.

        A server that has forgotten the script is given it and asked once more. The deadline
        covers all of that. What cannot be sent is said at once, not when it is awaited.
        """
        script.check_keys(len(keys))
        packed = pack_script_call(script.sha1, keys, arguments)
        return self._submit(packed, _moment_in(deadline_ms), script)

    def call_prepared(
        self,
        prepared: PreparedCall,
        call_id: str,
        arguments: list[bytes],
        deadline_ms: int = 1_000,
    ) -> Awaitable[Any]:
        """Run a script about a call, prepared by its chain; as `call_script`."""
        connection = self._live
        if connection is None:
            self._refuse()
        return connection.call(prepared, call_id, arguments, deadline_ms)

    async def close(self) -> None:
        """Send what is queued, wait for the answers (1 s at most), and disconnect."""
        self._closing = True
        self._live = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._give_up("the store client is closed")

    def _submit(self, packed: bytes, deadline_ns: int, script: Script | None = None) -> Command:
        connection = self._live
        if connection is None:
            self._refuse()
        return connection.submit(packed, deadline_ns, script)

    def _refuse(self) -> Never:
        _NOT_SENT.add()
        raise NotExecuted(self._refusal())

    def _refusal(self) -> str:
        if self._closing:
            return "the store client is closed"
        if not self._health.up:
            return "the store did not answer in time and counts as down"
        return "the store is not connected"

    def _call_forgotten(self, command: Command) -> None:
        task = asyncio.create_task(self._call_again(command))
        self._calls_again.add(task)
        task.add_done_callback(self._calls_again.discard)

    async def _call_again(self, command: Command) -> None:
        try:
            await self._load(command.script, command.deadline_ns)
            connection = self._live
            if connection is None:
                raise NotExecuted(self._refusal())
            connection.repeat(command)
        except (StoreError, InvariantError) as error:
            if not command.done():
                command.set_exception(error)

    async def _load(self, script: Script, deadline_ns: int) -> None:
        """Give the server a script; callers that need the same one share the command."""
        self._scripts.setdefault(script.sha1, script)
        task = self._loading.get(script.sha1)
        if task is None:
            task = asyncio.create_task(self._send_script(script, deadline_ns))
            self._loading[script.sha1] = task
            task.add_done_callback(lambda _: self._loading.pop(script.sha1))
        try:
            await asyncio.shield(task)
        except StoreError as error:
            raise NotExecuted(f"script {script.name} cannot be loaded: {error}") from error

    async def _send_script(self, script: Script, deadline_ns: int) -> None:
        sha1 = await self._submit(pack_command(("SCRIPT", "LOAD", script.source)), deadline_ns)
        if sha1 != script.sha1.encode():
            raise InvariantError(f"script {script.name} has SHA-1 {sha1!r}, not {script.sha1}")
        log.event("script_reloaded", level="warning", script=script.name)

    # Staying connected.

    def _went_down(self) -> None:
        self._live = None
        if self._connection is not None:
            self._connection.drop_queued(self._refusal())
        self._trouble.set()

    async def _open(self) -> None:
        connection, run_id = await open_connection(
            self._address,
            self._health,
            scripts=self._scripts.values(),
            client_name=self._client_name,
            timeout_ms=self._connect_timeout_ms,
        )
        connection.on_forgotten = self._call_forgotten
        connection.lost.add_done_callback(lambda _: self._trouble.set())
        connection.on_readonly.add_done_callback(lambda _: self._trouble.set())
        self._health.recovered()
        self._connection = self._live = connection
        _CONNECTIONS.add()
        previous, self.run_id = self.run_id, run_id
        log.event("store_connected", store=self.address, run_id=run_id)
        if previous is not None and previous != run_id:
            log.event("store_restarted", level="warning", store=self.address, run_id=run_id)
            self._tell_run_id(previous, run_id)

    def _tell_run_id(self, previous: str, present: str) -> None:
        for callback in self._run_id_callbacks:
            try:
                callback(previous, present)
            except Exception as error:
                # Whatever a listener does, the connection goes on being maintained.
                log.event("run_id_callback_failed", level="error", error=error)

    async def _maintain(self) -> None:
        """Keep one good connection for as long as the client lives."""
        while True:
            if self._connection is not None:
                reason = await self._watch(self._connection)
                log.event("store_disconnected", level="warning", store=self.address, reason=reason)
                await self._give_up(reason)
            await self._reconnect()

    async def _watch(self, connection: Connection) -> str:
        """Return, with the reason, when the connection is lost or no longer worth keeping."""
        while True:
            await self._trouble.wait()
            self._trouble.clear()
            if connection.lost.done():
                return connection.refusal or "lost"
            if connection.on_readonly.done():
                return "the store has become a replica"
            if not self._health.up and not await self._probe(connection):
                return "the store does not answer"

    async def _probe(self, connection: Connection) -> bool:
        """Ask a store that counts as down until it answers in time; False to give it up."""
        log.event("store_down", level="error", store=self.address)
        for _ in range(_PROBES_MAX):
            due_ns = _moment_in(PROBE_INTERVAL_MS)
            try:
                await connection.submit(_PING, due_ns)
            except (NotExecuted, OutcomeUnknown):
                if connection.lost.done():
                    return False
                await asyncio.sleep(max(0, due_ns - meters.now_ns()) / 1_000_000_000)
            else:
                self._health.recovered()
                self._live = connection
                log.event("store_up", store=self.address)
                return True
        return False

    async def _give_up(self, reason: str) -> None:
        """Take no more commands, wait a little for those in flight, and disconnect."""
        connection = self._connection
        self._live = None
        if connection is None:
            return
        connection.finish(reason)
        if self._health.up:
            await asyncio.wait((connection.lost,), timeout=_FINISH_SECONDS_MAX)
        connection.abort(reason)
        await connection.lost
        self._connection = None

    async def _reconnect(self) -> None:
        """Try until it succeeds, after growing and random pauses: a fleet must not storm in."""
        pause_seconds = _BACKOFF_SECONDS_MIN
        told = ""
        while True:
            try:
                return await self._open()
            except Exception as error:
                # Whatever it was, a client that stopped trying would need an operator to notice.
                level: log.LevelName = "debug" if str(error) == told else "warning"
                log.event("store_unreachable", level=level, error=error)
                told = str(error)
            await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))
            pause_seconds = min(2 * pause_seconds, _BACKOFF_SECONDS_MAX)
