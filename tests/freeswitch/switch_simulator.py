"""A FreeSWITCH for tests: its event socket, calls, dialplan and timers; no media and no SIP.

It does what the transcripts show, in the order they show it, with events cut from them; a test of
its own compares the two. Beyond them it invents nothing but the callee, whom a test describes, and
what a dialplan is told to do next. Not simulated: CHANNEL_EXECUTE and CALL_UPDATE events, filters.

`speed` makes its clock run faster than the world's, the coarse scheduler included.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from freeswitch.clock import Clock, Scheduler, Task
from freeswitch.legs import Leg, known_cause
from freeswitch.outbound_door import OutboundDoor
from freeswitch.simulated_api import SimulatedApi
from freeswitch.socket_session import Command, SocketSession
from freeswitch.templates import A_LEG, B_LEG, Headers, Names, form_without_leg

HOST = "fs-sim"
#: A leg that a door holds for nobody is given up by its dialplan, as the examples say.
_PARK_TIMEOUT_SECONDS = 30.0


@dataclass
class Callee:
    """What happens when a number is called. Times are the switch's seconds; None is never."""

    ring_seconds: float | None = 0.02
    answer_seconds: float | None = 0.2
    has_early_media: bool = False
    #: A cause by which it refuses instead of answering.
    refusal: str = ""
    #: How long after the answer it hangs up.
    hangup_seconds: float | None = None


@dataclass
class Door:
    """The dialplan that a new call meets: it parks, or is handed to an outbound socket."""

    #: Address of the outbound socket; parked if it is None.
    socket: tuple[str, int] | None = None
    is_async: bool = False
    has_full_control: bool = True
    park_timeout_seconds: float = _PARK_TIMEOUT_SECONDS
    park_timeout_cause: str = "SERVICE_UNAVAILABLE"
    #: What the dialplan does after the socket, if the call is still there and where it was.
    afterwards: list[tuple[str, str]] = field(
        default_factory=lambda: [("hangup", "NORMAL_TEMPORARY_FAILURE")]
    )


class SwitchSimulator:
    """A running switch. `start` makes one; `call` sends it a call.

    `callees` tells who answers a number; who is not named is a plain `Callee`. `legs` are all legs
    that are up; `ended` remembers the callers' legs that are not, by uuid.
    """

    def __init__(self, *, password: str, speed: float, heartbeat_seconds: float, seed: int) -> None:
        self.password = password
        self.clock = Clock(speed)
        self.rng = random.Random(seed)
        self.heartbeat_seconds = heartbeat_seconds
        self.core_uuid = self.new_uuid()
        #: Sends every new connection away, as an access list does.
        self.is_refusing = False
        #: Reads nothing and says nothing, as a host that hangs; see `wake`.
        self.is_silent = False
        self.callees: dict[str, Callee] = {}
        self.sessions: set[SocketSession] = set()
        self.legs: dict[str, Leg] = {}
        self.ended: dict[str, Leg] = {}
        self.api = SimulatedApi(self)
        self.scheduler = Scheduler(self.clock, self._schedule_changed)
        self.port = 0
        self._sequence = 0
        self._listener: socket.socket | None = None
        self._accepting: set[asyncio.Task[None]] = set()
        self._heartbeat: asyncio.TimerHandle | None = None
        self._doors: dict[str, Door] = {}
        self._sockets: dict[str, OutboundDoor] = {}
        self._ended_waiters: dict[str, asyncio.Future[Leg]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(
        cls,
        *,
        password: str = "ClueCon",
        speed: float = 1.0,
        heartbeat_seconds: float = 20.0,
        seed: int = 1,
    ) -> SwitchSimulator:
        """Start a switch that listens on a free port of 127.0.0.1."""
        switch = cls(password=password, speed=speed, heartbeat_seconds=heartbeat_seconds, seed=seed)
        await switch._listen()
        return switch

    async def close(self) -> None:
        """End everything at once."""
        await self.crash()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What a test may do to it.

    def call(
        self,
        to_number: str = "1001",
        from_number: str = "1000",
        *,
        uuid: str = "",
        context: str = "public",
        door: Door | None = None,
        **variables: str,
    ) -> Leg:
        """Let a telephone call a number, and the dialplan do what its `door` says."""
        leg = Leg(
            uuid or self.new_uuid(), A_LEG, from_number, to_number, context, self.clock.now_us()
        )
        leg.variables |= variables
        self.legs[leg.uuid] = leg
        self._doors[leg.uuid] = door = door or Door()
        self.emit(leg, "CHANNEL_CREATE")
        if door.socket is None:
            self.park(leg)
            self.clock.later(door.park_timeout_seconds, lambda: self._park_timed_out(leg, door))
        else:
            self._sockets[leg.uuid] = OutboundDoor(self, leg, door)
            self.spawn(self._sockets[leg.uuid].connect())
        return leg

    def caller_hangs_up(self, leg: Leg) -> None:
        """Let the caller cancel, or say BYE."""
        self.hang_up(leg, "NORMAL_CLEARING" if leg.is_answered else "ORIGINATOR_CANCEL", 487)

    def callee_hangs_up(self, leg: Leg) -> None:
        """Let the other side of a caller's leg say BYE."""
        if leg.other is not None:
            self.hang_up(leg.other, "NORMAL_CLEARING")

    async def until_ended(self, leg: Leg) -> Leg:
        """Wait until a caller's leg is gone, and return it."""
        if leg.uuid not in self.ended:
            waiter = self._ended_waiters.get(leg.uuid)
            if waiter is None:
                waiter = asyncio.get_running_loop().create_future()
                self._ended_waiters[leg.uuid] = waiter
            await asyncio.shield(waiter)
        return leg

    def drop_connections(self) -> None:
        """Lose every event-socket connection; the calls go on."""
        for session in tuple(self.sessions):
            session.abort()

    def wake(self) -> None:
        """Be silent no more, and run what came meanwhile."""
        self.is_silent = False
        for session in tuple(self.sessions):
            session.listen()

    async def shut_down(self) -> None:
        """Stop as on a signal: every call ends, and every client is told."""
        for leg in [leg for leg in self.legs.values() if leg.is_caller]:
            self.hang_up(leg, "SYSTEM_SHUTDOWN")
        await asyncio.sleep(0.05)
        sessions = tuple(self.sessions)
        for session in sessions:
            session.say_goodbye()
        if sessions:
            await asyncio.wait([session.gone for session in sessions], timeout=1)
        await self.crash()

    async def crash(self) -> None:
        """Die: no event, no goodbye, and nobody listens any more."""
        for door in tuple(self._sockets.values()):
            door.abort()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            await asyncio.gather(*self._accepting)
        self.drop_connections()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self.scheduler.close()
        self.legs.clear()
        for session in tuple(self.sessions):
            await session.gone

    async def restart(self) -> None:
        """Come up again, with a new identity and without calls."""
        self.core_uuid = self.new_uuid()
        self.scheduler = Scheduler(self.clock, self._schedule_changed)
        await self._listen()

    # What happens to calls.

    def park(self, leg: Leg, *, silently: bool = False) -> None:
        """Let a leg wait; `silently` when it comes back from a bridge, as seen in 09j."""
        leg.is_parked = True
        leg.application = ("park", "")
        if not silently:
            self.emit(leg, "CHANNEL_PARK")

    def route(self, leg: Leg, extension: str, context: str) -> None:
        """Send a caller's leg to an extension, which bridges it to the callee of that number."""
        self._leave(leg)
        leg.destination = extension
        leg.context = context or leg.context
        leg.profile_created_us = self.clock.now_us()
        history = f"{self.clock.now_us() // 1_000_000}:{self.new_uuid()}:bl_xfer:"
        leg.variables["transfer_source"] = f"{history}{extension}/{leg.context}/XML"
        self._unpark(leg)
        leg.variables["hangup_after_bridge"] = "true"
        self.bridge(leg, f"sofia/internal/{extension}@127.0.0.1:5090")

    def run_applications(self, leg: Leg, applications: list[tuple[str, str]]) -> None:
        """Run an inline dialplan to its end, where the switch hangs up."""
        self._leave(leg)
        self._unpark(leg)
        self._run_next(leg, applications)

    def bridge(self, leg: Leg, dial_string: str) -> None:
        """Call somebody for a leg."""
        variables, number = parse_dial_string(dial_string)
        leg.application = ("bridge", dial_string)
        leg.is_parked = False
        now_us = self.clock.now_us()
        other = Leg(self.new_uuid(), B_LEG, leg.from_number, number, leg.context, now_us)
        other.variables |= {**self._exported(leg), **variables, "originator": leg.uuid}
        other.other, leg.other = leg, other
        leg.has_rung = True
        self.legs[other.uuid] = other
        for name in ("CHANNEL_OUTGOING", "CHANNEL_CREATE", "CHANNEL_ORIGINATE"):
            self.emit(other, name)
        callee = self.callees.get(number, Callee())
        if callee.ring_seconds is not None:
            self.clock.later(callee.ring_seconds, lambda: self._ring(leg, other, callee))
        if callee.refusal:
            seconds = callee.answer_seconds or 0
            self.clock.later(seconds, lambda: self.hang_up(other, callee.refusal))
        elif callee.answer_seconds is not None:
            self.clock.later(callee.answer_seconds, lambda: self._answer(leg, other, callee))
        timeout = str(leg.variables.get("call_timeout", leg.variables.get("originate_timeout", "")))
        if timeout.isdigit():
            self.clock.later(int(timeout), lambda: self._no_answer(other))

    def answer(self, leg: Leg) -> None:
        """Answer a leg, once; `execute_on_answer` runs now or never."""
        if leg.is_answered or not leg.is_up:
            return
        leg.answered_us = self.clock.now_us()
        self.emit(leg, "CHANNEL_ANSWER")
        if not leg.is_caller:
            return
        on_answer = str(leg.variables.get("execute_on_answer", ""))
        if on_answer:
            application, _, argument = on_answer.replace("::", " ", 1).partition(" ")
            self.execute(leg, application, argument)
        interval = str(leg.variables.get("enable_heartbeat_events", ""))
        if interval.isdigit():
            self.beat(leg, int(interval))

    def beat(self, leg: Leg, seconds: int) -> None:
        """Tell of a leg every so often."""

        def tell() -> None:
            if self.legs.get(leg.uuid) is leg and leg.is_up:
                self.emit(leg, "SESSION_HEARTBEAT")
                self.clock.later(seconds, tell)

        self.clock.later(seconds, tell)

    def hang_up(self, leg: Leg, cause: str, sip_status: int = 0) -> None:
        """End a leg, and by that what it was joined with; events follow in either order."""
        if not leg.is_up or leg.uuid not in self.legs:
            return
        leg.hang_up(cause, self.clock.now_us(), sip_status)
        self.emit(leg, "CHANNEL_HANGUP")
        other, leg.other = leg.other, None
        leg.last_other_uuid = other.uuid if other else leg.last_other_uuid
        if leg.is_caller:
            self._end_caller(leg, other)
        else:
            self._end_callee(leg, other)

    def execute(self, leg: Leg, application: str, argument: str) -> None:
        """Run a dialplan application; what it is not known to do does nothing."""
        if application in ("set", "export"):
            name, _, text = argument.partition("=")
            leg.variables[name] = text
        elif application == "respond":
            leg.application = (application, argument)
            self.hang_up(leg, "CALL_REJECTED", int(argument.partition(" ")[0]))
        elif application == "hangup":
            self.hang_up(leg, known_cause(argument))
        elif application == "bridge":
            leg.variables.setdefault("hangup_after_bridge", "false")
            self.bridge(leg, argument)
        elif application == "transfer":
            extension, _, rest = argument.partition(" ")
            self.route(leg, extension, rest.partition(" ")[2])
        elif application == "answer":
            self.answer(leg)
        elif application == "park":
            self.park(leg)
        elif application == "sched_hangup":
            self.api.run(f"sched_hangup {argument.replace(' ', f' {leg.uuid} ', 1)}")
            leg.application = (application, argument)
        elif application == "enable_heartbeat":
            self.beat(leg, int(argument))
        else:
            leg.application = (application, argument)

    def take_message(self, leg: Leg, command: Command) -> None:
        """Do what a sendmsg says, after its answer."""
        kind = command.headers.get("call-command")
        if kind == "hangup":
            cause = known_cause(command.headers.get("hangup-cause", "NORMAL_CLEARING"))
            self.soon(lambda: self.hang_up(leg, cause))
        elif kind == "execute":
            name = command.headers["execute-app-name"]
            argument = command.headers.get("execute-app-arg", command.body)
            self.soon(lambda: self.execute(leg, name, argument))

    # What it tells.

    def emit(self, leg: Leg, name: str) -> None:
        """Send an event of a leg to whoever asked for it."""
        self._send(name, lambda: leg.headers(name), leg.uuid)

    def moment(self) -> Headers:
        """Return the headers that every event has of its own."""
        self._sequence += 1
        now_us = self.clock.now_us()
        moment = time.gmtime(now_us // 1_000_000)
        return {
            "Core-UUID": self.core_uuid,
            "FreeSWITCH-Switchname": HOST,
            "Event-Date-Local": time.strftime("%Y-%m-%d %H:%M:%S", moment),
            "Event-Date-GMT": time.strftime("%a, %d %b %Y %H:%M:%S GMT", moment),
            "Event-Date-Timestamp": str(now_us),
            "Event-Sequence": str(self._sequence),
        }

    def run_job(self, job_uuid: str, line: str) -> None:
        """Run an api command in the background."""

        def run() -> None:
            body = self.api.run(line)
            name, _, argument = line.partition(" ")
            headers = {
                "Event-Name": "BACKGROUND_JOB",
                "Job-UUID": job_uuid,
                "Job-Command": name,
                **({"Job-Command-Arg": argument} if argument else {}),
            }
            self._send("BACKGROUND_JOB", lambda: dict(headers), body=body)

        self.clock.later(0.001, run)

    def new_uuid(self) -> str:
        """Return a uuid; the seed decides which."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def soon(self, action: Callable[[], None]) -> None:
        """Do something after what is being said now."""
        asyncio.get_running_loop().call_soon(action)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a coroutine until the end of the simulator."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Inside.

    async def _listen(self) -> None:
        # Not a server of asyncio's: closing one loses connections that it is about to accept,
        # which then are neither served nor closed.
        listener = socket.create_server(("127.0.0.1", self.port), backlog=1_000)
        # For its connections, as the switch has it: else an event may wait 40 ms for the client's
        # acknowledgement of the one before. asyncio sets it where a socket tells its protocol only.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        self._heartbeat = self.clock.later(self.heartbeat_seconds, self._tell_heartbeat)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            task = loop.create_task(self._welcome(accepted))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _welcome(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(lambda: SocketSession(self), accepted)

    def _tell_heartbeat(self) -> None:
        self._heartbeat = self.clock.later(self.heartbeat_seconds, self._tell_heartbeat)
        self._send_free("HEARTBEAT", {"Session-Count": str(len(self.legs))})

    def _schedule_changed(self, name: str, task: Task) -> None:
        about: Headers = {
            "Event-Name": name,
            "Task-ID": str(task.number),
            "Task-Desc": task.description,
            "Task-Group": task.group,
            "Task-Runtime": str(task.due),
        }
        self._send_free(name, about)

    def _send_free(self, name: str, about: Headers) -> None:
        self._send(name, lambda: form_without_leg(name).fill(Names("", "", "", "")) | about)

    def _send(
        self, name: str, make: Callable[[], Headers], leg_uuid: str = "", body: str = ""
    ) -> None:
        receivers: list[SocketSession] = [one for one in self.sessions if one.wants(name)]
        door = self._sockets.get(leg_uuid)
        if door is not None and door.wants(name):
            receivers.append(door)
        if not receivers or self.is_silent:
            return
        headers = make() | self.moment()
        for receiver in receivers:
            receiver.send_event(headers, body)

    def _park_timed_out(self, leg: Leg, door: Door) -> None:
        if leg.is_parked and not leg.has_rung and leg.is_up:
            self.hang_up(leg, door.park_timeout_cause)

    def _unpark(self, leg: Leg) -> None:
        if leg.is_parked:
            leg.is_parked = False
            self.emit(leg, "CHANNEL_UNPARK")

    def _leave(self, leg: Leg) -> None:
        """Part a leg from its other one, which ends; the leg itself goes on."""
        other, leg.other = leg.other, None
        if other is None:
            return
        other.other = None
        other.last_other_uuid = leg.uuid
        leg.last_other_uuid = other.uuid
        other.hang_up("NORMAL_CLEARING", self.clock.now_us())
        self.emit(other, "CHANNEL_HANGUP")
        self._complete(other)
        self.emit(leg, "CHANNEL_UNBRIDGE")

    def _exported(self, leg: Leg) -> dict[str, str | list[str]]:
        names = str(leg.variables.get("export_vars", "")).split(",")
        return {name: leg.variables[name] for name in names if name in leg.variables}

    def _ring(self, leg: Leg, other: Leg, callee: Callee) -> None:
        if leg.other is not other or not other.is_up:
            return
        name = "CHANNEL_PROGRESS_MEDIA" if callee.has_early_media else "CHANNEL_PROGRESS"
        for one in (other, leg):
            if one.is_answered:
                continue
            if callee.has_early_media:
                one.progress_media_us = self.clock.now_us()
            else:
                one.progress_us = self.clock.now_us()
            self.emit(one, name)
        if callee.has_early_media:
            self._join(leg, other)

    def _answer(self, leg: Leg, other: Leg, callee: Callee) -> None:
        if leg.other is not other or not other.is_up:
            return
        self.answer(other)
        self.answer(leg)
        if leg.other is other and not callee.has_early_media:
            self._join(leg, other)
        if callee.hangup_seconds is not None:
            self.clock.later(callee.hangup_seconds, lambda: self.hang_up(other, "NORMAL_CLEARING"))

    def _join(self, leg: Leg, other: Leg) -> None:
        leg.bridged_us = other.bridged_us = self.clock.now_us()
        self.emit(leg, "CHANNEL_BRIDGE")

    def _no_answer(self, other: Leg) -> None:
        if not other.is_answered:
            self.hang_up(other, "NO_ANSWER")

    def _end_caller(self, leg: Leg, other: Leg | None) -> None:
        if other is not None:
            other.other = None
            other.last_other_uuid = leg.uuid
            ends_alike = leg.cause == "SYSTEM_SHUTDOWN" or not other.is_answered
            cause = leg.cause if ends_alike else "NORMAL_CLEARING"
            other.hang_up(cause, self.clock.now_us())
            self.emit(other, "CHANNEL_HANGUP")
        if leg.is_parked:
            self.emit(leg, "CHANNEL_UNPARK")
        if leg.bridged_us and other is not None:
            self.emit(leg, "CHANNEL_UNBRIDGE")
        order = [leg, other] if self.rng.random() < 0.5 else [other, leg]
        for one in order:
            if one is not None:
                self._complete(one)

    def _end_callee(self, other: Leg, leg: Leg | None) -> None:
        self._complete(other)
        if leg is None:
            return
        leg.other = None
        leg.last_other_uuid = other.uuid
        if leg.bridged_us:
            self.emit(leg, "CHANNEL_UNBRIDGE")
        if leg.variables.get("hangup_after_bridge") == "true":
            self.hang_up(leg, other.cause)
        elif leg.is_answered:
            self.park(leg, silently=True)

    def _complete(self, leg: Leg) -> None:
        if self.legs.pop(leg.uuid, None) is None:
            return
        self.scheduler.delete_group(leg.uuid)
        self.emit(leg, "CHANNEL_HANGUP_COMPLETE")
        self.emit(leg, "CHANNEL_DESTROY")
        self._doors.pop(leg.uuid, None)
        door = self._sockets.pop(leg.uuid, None)
        if door is not None:
            door.leg_ended()
        if leg.is_caller:
            self.ended[leg.uuid] = leg
            waiter = self._ended_waiters.pop(leg.uuid, None)
            if waiter is not None:
                waiter.set_result(leg)

    def _run_next(self, leg: Leg, applications: list[tuple[str, str]]) -> None:
        with contextlib.suppress(IndexError):
            while leg.is_up:
                application, argument = applications.pop(0)
                self.execute(leg, application, argument)
                if application == "playback":
                    self.clock.later(1.0, lambda: self._run_next(leg, applications))
                    return
        if leg.is_up and leg.other is None:
            self.hang_up(leg, "NORMAL_CLEARING")


def parse_dial_string(text: str) -> tuple[dict[str, str], str]:
    """Return the variables of a dial string and the number that it calls."""
    variables: dict[str, str] = {}
    if text.startswith(("{", "[")):
        inside, _, text = text[1:].partition("}" if text[0] == "{" else "]")
        for assignment in inside.split(","):
            name, _, value = assignment.partition("=")
            variables[name] = value
    number = text.rpartition("/")[2].partition("@")[0]
    return variables, number
