"""`authz serve`: starts the processes of the daemon, keeps them running, and ends them in order.

It owns what outlives any one process: the embedded store, the listening sockets, and the rule
of when to give up. It answers no request itself.

Signals: SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reads the settings again
and replaces the processes one by one, each new one ready before its predecessor drains, so
that the port never stops answering. What only a restart can change stays as it was.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable
from typing import Any, Final, Protocol

from authz import log, meters
from authz.config import Settings, all_settings
from authz.errors import AuthzError, ConfigError
from authz.meters.shared import SharedMeters
from authz.server.admin_guard import require_admin_guard
from authz.server.child import configure_log
from authz.server.crew import Crew, Plan, Programs
from authz.server.listeners import ADMIN, Listeners
from authz.server.notify import Notifier
from authz.server.process import PINGS_UNANSWERED_MAX, ProcessFailed

_NAME: Final = "serve"
_BEAT_SECONDS: Final = 1
_RELOADS: Final = meters.counters("authz_reloads_total")


class StoreRunner(Protocol):
    """Keeps the store within reach: the one that the settings name, or an own one."""

    async def start(self) -> str:
        """Return the URL at which the store answers; raise AuthzError if it cannot."""

    async def keep(self) -> None:
        """Start it anew whenever it ends; raise AuthzError when that is in vain."""

    async def stop(self) -> None:
        """Stop it, if it is an own one."""


class Supervisor:
    """One run of the daemon."""

    def __init__(
        self,
        load: Callable[[], Settings],
        *,
        programs: Programs,
        open_store: Callable[[Settings], StoreRunner],
    ) -> None:
        """`load` reads the settings, now and at every reload; it raises ConfigError."""
        self._load = load
        self._programs = programs
        self._settings = load()
        self._store = open_store(self._settings)
        self._listeners = Listeners()
        self._notifier = Notifier(os.environ)
        self._meters = _share_meters()
        self._crew: Crew | None = None
        self._store_url = ""

    async def run(self) -> None:
        """Serve until told to stop; raise AuthzError when the daemon cannot start or go on."""
        loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[None] = loop.create_future()
        self._stop_wanted = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._want_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        configure_log(self._settings, _NAME)
        tasks: list[asyncio.Future[Any]] = [
            loop.create_task(self._serve()),
            loop.create_task(self._stop_wanted.wait()),
            self._failed,
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._shut_down()

    async def _serve(self) -> None:
        """Bring everything up, then reload whenever asked to."""
        settings = self._settings
        _prepare_state_dir(settings)
        self._listeners.open(settings)
        self._store_url = await self._store.start()
        await self._require_admin_guard(settings)
        self._crew = Crew(self._programs, self._plan(settings), self._give_up, self._meters)
        await self._crew.start()
        addresses = self._listeners.addresses()
        log.event("serving", state_dir=str(settings.state_dir), listeners=addresses)
        self._notifier.ready(_status(addresses))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._check_processes(self._crew))
            group.create_task(self._feed_watchdog())
            group.create_task(self._beat())
            group.create_task(self._keep_store())
            while True:
                await self._reload_wanted.wait()
                self._reload_wanted.clear()
                await self._reload(self._crew)

    async def _shut_down(self) -> None:
        self._notifier.stopping()
        if self._crew is not None:
            log.event("stopping", drain_seconds=self._settings.server.drain_seconds)
            await self._crew.end()
        self._listeners.close()
        # Last of all: whoever drains still books what it has begun.
        await self._store.stop()
        log.event("stopped", level="info" if self._crew is not None else "debug")

    async def _reload(self, crew: Crew) -> None:
        self._notifier.reloading()
        log.event("reloading")
        try:
            settings = _keep_fixed(self._settings, self._load())
            change = self._listeners.open(settings)
            try:
                await self._require_admin_guard(settings)
                await crew.follow(self._plan(settings))
            except (ConfigError, ProcessFailed):
                change.undo()
                raise
        except (ConfigError, ProcessFailed) as error:
            log.event("reload_failed", level="error", error=error)
            _RELOADS["failed"].add()
        else:
            _RELOADS["ok"].add()
            change.keep()
            self._settings = settings
            configure_log(settings, _NAME)
            log.event("reloaded", listeners=self._listeners.addresses())
        self._notifier.ready(_status(self._listeners.addresses()))

    async def _check_processes(self, crew: Crew) -> None:
        while True:
            await asyncio.sleep(self._settings.server.hang_seconds / PINGS_UNANSWERED_MAX)
            crew.check()

    async def _feed_watchdog(self) -> None:
        while self._notifier.watchdog_seconds is not None:
            self._notifier.watchdog()
            await asyncio.sleep(self._notifier.watchdog_seconds)

    async def _beat(self) -> None:
        while self._meters is not None:
            self._meters.beat()
            await asyncio.sleep(_BEAT_SECONDS)

    async def _keep_store(self) -> None:
        try:
            await self._store.keep()
        except AuthzError as error:
            self._give_up(error)

    async def _require_admin_guard(self, settings: Settings) -> None:
        listener = self._listeners.by_name().get(ADMIN)
        await require_admin_guard(listener, settings, self._store_url)

    def _plan(self, settings: Settings) -> Plan:
        return Plan(settings, self._store_url, self._listeners.by_name())

    def _give_up(self, error: AuthzError) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    def _want_stop(self) -> None:
        if self._stop_wanted.is_set() and self._crew is not None:
            log.event("stopping_at_once", level="warning")
            self._crew.kill()
        self._stop_wanted.set()


def _share_meters() -> SharedMeters | None:
    """Return the memory in which this daemon's processes count, and count there from now on."""
    try:
        shared = SharedMeters.create()
    except OSError as error:
        # Calls must be decided, counted or not.
        log.event("meters_not_shared", level="warning", error=error)
        return None
    shared.reserve(_NAME)
    shared.count_here(_NAME)
    return shared


def _prepare_state_dir(settings: Settings) -> None:
    """Make the state directory, for this user only; raise ConfigError if it cannot be used."""
    path = settings.state_dir
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"state_dir: {path} cannot be written by user {os.geteuid()} ({error.strerror}); "
            "give it to that user, or set state_dir or AUTHZ_STATE_DIR to another directory"
        ) from error


def _keep_fixed(before: Settings, after: Settings) -> Settings:
    """Return the new settings with the old values of those that only a restart can change."""
    for setting in all_settings().values():
        if not setting.needs_restart:
            continue
        old, new = setting.value_in(before), setting.value_in(after)
        if old != new:
            log.event("setting_needs_restart", level="warning", setting=setting.key)
            after = setting.replaced_in(after, old)
    return after


def _status(addresses: dict[str, str]) -> str:
    return "serving " + ", ".join(f"{name} on {address}" for name, address in addresses.items())
