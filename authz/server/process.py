"""A child process as the supervisor sees it: started, ready, drained, dead."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from authz.errors import AuthzError
from authz.server.control import (
    Channel,
    Closed,
    Connection,
    Drain,
    Failed,
    Leaving,
    Message,
    Ping,
    Pong,
    Ready,
    Start,
)

#: So many unanswered pings, spread over `hang_seconds`, mean that a process hangs.
PINGS_UNANSWERED_MAX: Final = 4


class ProcessFailed(AuthzError):
    """A process ended before it was ready. A wrong setting will not mend by starting anew."""

    def __init__(self, detail: str, *, is_setting: bool = False) -> None:
        super().__init__(detail)
        self.is_setting = is_setting


class Process:
    """One running child. `connections` counts those passed to it that have not ended."""

    def __init__(self, name: str, end: socket.socket, running: asyncio.subprocess.Process) -> None:
        """Use `spawn` instead."""
        loop = asyncio.get_running_loop()
        self.name = name
        self.connections = 0
        self.pings_unanswered = 0
        self.is_draining = False
        self.exited = loop.create_task(running.wait())
        self._running = running
        self._failed: Failed | None = None
        self._ready: asyncio.Future[None] = loop.create_future()
        self._ready_at_seconds: float | None = None
        self._channel = Channel(end, on_message=self._receive, on_end=lambda: None)
        self.exited.add_done_callback(self._end)

    @classmethod
    async def spawn(
        cls,
        name: str,
        program: Sequence[str],
        *,
        settings: str,
        store_url: str,
        listeners: Mapping[str, socket.socket],
        meters: int | None = None,
    ) -> Process:
        """Start the program and tell it what to serve; the listeners are duplicated for it.

        `meters` is the descriptor of the memory in which it shall count.
        """
        ours, theirs = Channel.pair()
        inherited = (theirs.fileno(),) if meters is None else (theirs.fileno(), meters)
        options = [f"--control={theirs.fileno()}"]
        if meters is not None:
            options.append(f"--meters={meters}")
        environ = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        try:
            running = await asyncio.create_subprocess_exec(
                *program,
                *options,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=inherited,
                env=environ,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        process = cls(name, ours, running)
        process._channel.send(
            Start(name=name, settings=settings, store_url=store_url, listeners=tuple(listeners)),
            [listener.dup() for listener in listeners.values()],
        )
        return process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._running.pid

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self._ready_at_seconds is not None and not self.exited.done()

    @property
    def ready_seconds(self) -> float:
        """For how long it has been answering, 0 if it never has."""
        if self._ready_at_seconds is None:
            return 0
        return asyncio.get_running_loop().time() - self._ready_at_seconds

    async def wait_ready(self, limit_seconds: float) -> None:
        """Return when it answers; raise ProcessFailed when it ends first or takes too long."""
        either: list[asyncio.Future[Any]] = [self._ready, self.exited]
        await asyncio.wait(either, timeout=limit_seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._ready.done():
            return
        if not self.exited.done():
            raise ProcessFailed(f"{self.name} was not ready within {limit_seconds} s")
        if self._failed is not None:
            raise ProcessFailed(self._failed.detail, is_setting=self._failed.is_setting)
        raise ProcessFailed(f"{self.name} ended before it was ready: {self.describe_exit()}")

    def pass_connection(self, connection: socket.socket) -> None:
        """Let it serve this accepted connection, which is closed here."""
        self.connections += 1
        self._channel.send(Connection(), [connection])

    def ping(self) -> None:
        """Ask for a sign of life; any message counts as one."""
        self.pings_unanswered += 1
        self._channel.send(Ping())

    def drain(self) -> None:
        """Ask it to finish what it has begun and to exit."""
        self.is_draining = True
        self._channel.send(Drain())

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._running.kill()

    async def end_within(self, limit_seconds: float) -> None:
        """Drain it, and kill it if that takes longer."""
        self.drain()
        await asyncio.wait([self.exited], timeout=limit_seconds)
        if not self.exited.done():
            self.kill()
            await asyncio.wait([self.exited])

    def describe_exit(self) -> str:
        """Say how it ended."""
        status = self.exited.result()
        return f"killed by signal {-status}" if status < 0 else f"exit status {status}"

    def _receive(self, message: Message, sockets: list[socket.socket]) -> None:
        self.pings_unanswered = 0
        match message:
            case Ready():
                self._ready_at_seconds = asyncio.get_running_loop().time()
                self._ready.set_result(None)
            case Closed(connections=connections):
                self.connections -= connections
            case Leaving():
                self.is_draining = True
            case Failed():
                self._failed = message
            case Pong():
                pass

    def _end(self, exited: asyncio.Task[int]) -> None:
        # Its last words may still be waiting: the kernel tells of a death and of a message apart.
        self._channel.finish()
