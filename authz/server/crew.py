"""The child processes together: brought up, kept running, replaced one by one, ended.

A process that ends unasked is started anew, at once if it has answered for a while, else with
growing pauses; one that never gets that far ends the daemon after a few tries, because a
service manager and its operator can do more about it than another try.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from authz import log, meters
from authz.config import Settings, encode_settings
from authz.errors import AuthzError, ConfigError
from authz.meters.shared import SharedMeters
from authz.server.balancer import Balancer
from authz.server.listeners import ADMIN, HOOK_NAMES, SWITCH_OUTBOUND
from authz.server.process import PINGS_UNANSWERED_MAX, Process, ProcessFailed

OFFICE: Final = "office"
AGENTS: Final = "agents"
#: A process that has answered for so long and then ends is not in a crash loop.
QUIET_SECONDS: Final = 10
_BACKOFF_SECONDS_FIRST: Final = 0.1
_BACKOFF_SECONDS_MAX: Final = 5.0
#: What a process gets on top of its own times before it is killed: draining its connections
#: and then finishing the engine's background work may each take `drain_seconds`.
_END_MARGIN_SECONDS: Final = 2
_ENDS: Final = meters.counters("authz_process_ends_total")


class CrashLoop(AuthzError):
    """A process ends again and again soon after its start: the daemon gives up."""


class Programs(NamedTuple):
    """The command lines of the kinds of child."""

    worker: Sequence[str]
    office: Sequence[str]
    agents: Sequence[str]

    def of(self, name: str) -> Sequence[str]:
        """Return the command line of the process of that name."""
        return {OFFICE: self.office, AGENTS: self.agents}.get(name, self.worker)


# -P: whatever lies in the working directory is not ours.
PROGRAMS: Final = Programs(
    worker=(sys.executable, "-P", "-m", "authz.server.worker"),
    office=(sys.executable, "-P", "-m", "authz.server.office"),
    agents=(sys.executable, "-P", "-m", "authz.server.agents"),
)


class Plan(NamedTuple):
    """What processes are started with from now on. `listeners` are the supervisor's, by name."""

    settings: Settings
    store_url: str
    listeners: Mapping[str, socket.socket]

    @property
    def names(self) -> list[str]:
        """Which processes there shall be."""
        workers = [f"worker-{n}" for n in range(1, self.settings.hook.workers + 1)]
        has_agents = self.settings.freeswitch.is_used or self.settings.kazoo.is_used
        return [*workers, OFFICE, *([AGENTS] if has_agents else ())]

    @property
    def is_spread(self) -> bool:
        """Whether connections are accepted here and spread; a single worker accepts itself."""
        return self.settings.hook.workers > 1

    def listeners_of(self, name: str) -> dict[str, socket.socket]:
        """Return the sockets on which the process listens itself."""
        if name == OFFICE:
            wanted: tuple[str, ...] = (ADMIN,)
        elif name == AGENTS:
            wanted = (SWITCH_OUTBOUND,)
        else:
            wanted = () if self.is_spread else HOOK_NAMES
        return {one: self.listeners[one] for one in wanted if one in self.listeners}


class _Post:
    """A place for one process at a time."""

    def __init__(self, name: str, process: Process, plan: Plan) -> None:
        self.name = name
        self.process = process
        #: The plan that the process was started with.
        self.plan = plan
        self.crashes = 0
        #: Held while the process is exchanged, so that a crash and a reload do not both do it.
        self.lock = asyncio.Lock()
        self.keeper: asyncio.Task[None] | None = None


class Crew:
    """All children of one supervisor."""

    def __init__(
        self,
        programs: Programs,
        plan: Plan,
        give_up: Callable[[AuthzError], None],
        shared_meters: SharedMeters | None = None,
    ) -> None:
        """`give_up` is told, once, why no further start is tried."""
        self._meters = shared_meters
        self._programs = programs
        self._plan = plan
        self._give_up = give_up
        self._balancer = Balancer()
        self._posts: dict[str, _Post] = {}
        #: Every living process, also those that drain or are not yet ready.
        self._living: set[Process] = set()

    async def start(self) -> None:
        """Bring up every process; return when all answer."""
        starts = [asyncio.create_task(self._first(name)) for name in self._plan.names]
        try:
            posts = await asyncio.gather(*starts)
        finally:
            for start in starts:
                start.cancel()
        self._spread()
        for post in posts:
            self._install(post)

    async def follow(self, plan: Plan) -> None:
        """Replace every process by one started with the new plan, one after the other.

        Each new process answers before its predecessor drains. If one does not come up, those
        replaced before it return to the old plan, and its ProcessFailed or ConfigError is raised.
        """
        before = self._plan
        try:
            await self._arrange(plan)
        except (ConfigError, ProcessFailed):
            try:
                await self._arrange(before)
            except (ConfigError, ProcessFailed) as error:
                self._give_up(error)
            raise

    async def end(self) -> None:
        """Stop accepting, drain all processes together, and kill those that do not finish."""
        for post in self._posts.values():
            if post.keeper is not None:
                post.keeper.cancel()
        self._balancer.listen({})
        await asyncio.gather(*(self._retire(process) for process in self._living))

    def kill(self) -> None:
        """End every process at once."""
        for process in self._living:
            process.kill()

    def check(self) -> None:
        """Ask every process for a sign of life, and kill those that have long given none."""
        for process in self._living:
            if process.pings_unanswered >= PINGS_UNANSWERED_MAX:
                log.event("process_hangs", level="error", name=process.name, pid=process.pid)
                process.kill()
            elif process.is_ready:
                process.ping()

    async def _arrange(self, plan: Plan) -> None:
        """Bring about what a plan says, leaving alone what already follows it."""
        self._plan = plan
        self._spread()
        for name in plan.names:
            await self._replace(name)
        for name in set(self._posts) - set(plan.names):
            post = self._posts.pop(name)
            async with post.lock:
                if post.keeper is not None:
                    post.keeper.cancel()
                await self._retire(post.process)
            if self._meters is not None:
                self._meters.retire(name)

    def _spread(self) -> None:
        """Let the balancer accept for several workers; a single one accepts itself."""
        names = HOOK_NAMES if self._plan.is_spread else ()
        listeners = self._plan.listeners
        self._balancer.listen({name: listeners[name] for name in names if name in listeners})

    async def _first(self, name: str) -> _Post:
        """Bring up a process for the first time, with as many tries as a crashing one gets."""
        crashes = 0
        while True:
            try:
                return _Post(name, await self._bring_up(name, self._plan), self._plan)
            except ProcessFailed as error:
                crashes += 1
                await self._back_off(name, crashes, str(error))

    def _install(self, post: _Post) -> None:
        self._posts[post.name] = post
        self._employ(post.process)
        post.keeper = asyncio.create_task(self._keep(post))

    def _employ(self, process: Process) -> None:
        if process.name not in (OFFICE, AGENTS) and self._plan.is_spread:
            self._balancer.add(process)

    async def _bring_up(self, name: str, plan: Plan) -> Process:
        """Start a process and return it when it answers; raise ProcessFailed or ConfigError."""
        settings = plan.settings
        has_row = self._meters is not None and self._meters.reserve(name)
        process = await Process.spawn(
            name,
            self._programs.of(name),
            settings=encode_settings(settings).decode(),
            store_url=plan.store_url,
            listeners=plan.listeners_of(name),
            meters=self._meters.descriptor if self._meters is not None and has_row else None,
        )
        self._living.add(process)
        process.exited.add_done_callback(lambda _: self._living.discard(process))
        try:
            await process.wait_ready(settings.server.start_seconds)
        except ProcessFailed as error:
            process.kill()
            if error.is_setting:
                raise ConfigError(str(error)) from error
            raise
        log.event("process_ready", name=name, pid=process.pid)
        return process

    async def _keep(self, post: _Post) -> None:
        """Start a post's process anew whenever it ends unasked."""
        while True:
            process = post.process
            await asyncio.wait([process.exited])
            async with post.lock:
                if post.process is process:
                    self._balancer.remove(process)
                    try:
                        await self._restart(post)
                    except AuthzError as error:
                        self._give_up(error)
                        return

    async def _restart(self, post: _Post) -> None:
        ended = post.process
        detail = ended.describe_exit()
        post.crashes = 0 if ended.ready_seconds >= QUIET_SECONDS else post.crashes + 1
        log.event("process_ended", level="error", name=post.name, pid=ended.pid, detail=detail)
        _ENDS[post.name.partition("-")[0]].add()
        while True:
            if post.crashes:
                await self._back_off(post.name, post.crashes, detail)
            try:
                # A reload may begin meanwhile; it must see what this process was started with.
                plan = self._plan
                post.process, post.plan = await self._bring_up(post.name, plan), plan
            except ProcessFailed as error:
                post.crashes += 1
                detail = str(error)
            else:
                self._employ(post.process)
                return

    async def _back_off(self, name: str, crashes: int, detail: str) -> None:
        """Wait before the next try; raise CrashLoop when there have been too many."""
        limit = self._plan.settings.server.crashes_max
        if crashes >= limit:
            raise CrashLoop(
                f"{name} ended {crashes} times in a row right after its start, last: {detail}; "
                "the daemon gives up (the events above tell more)"
            )
        pause_seconds = min(_BACKOFF_SECONDS_FIRST * 2 ** (crashes - 1), _BACKOFF_SECONDS_MAX)
        log.event("process_retried", level="warning", name=name, crashes=crashes, detail=detail)
        await asyncio.sleep(pause_seconds)

    async def _replace(self, name: str) -> None:
        post = self._posts.get(name)
        if post is None:
            self._install(_Post(name, await self._bring_up(name, self._plan), self._plan))
            return
        async with post.lock:
            if post.plan is self._plan:
                return
            new, old = await self._bring_up(name, self._plan), post.process
            post.process = new
            post.plan = self._plan
            post.crashes = 0
            self._employ(new)
            await self._retire(old)

    async def _retire(self, process: Process) -> None:
        self._balancer.remove(process)
        drain_seconds = self._plan.settings.server.drain_seconds
        await process.end_within(2 * drain_seconds + _END_MARGIN_SECONDS)
