"""The outbound socket of a simulated switch: it connects, and the dialplan waits or does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from freeswitch.legs import Leg
from freeswitch.socket_session import EVENT_NAMES, JSON, PLAIN, Command, SocketSession, encoded
from freeswitch.templates import Names, socket_form

if TYPE_CHECKING:
    from freeswitch.switch_simulator import Door, SwitchSimulator

#: How long an asynchronous socket's application takes until the call is parked; a client that
#: is gone by then leaves it there for good.
_PARK_SECONDS = 0.02
#: A client that says nothing is given up; the call stays as it is.
_SILENCE_SECONDS = 25.0


class OutboundDoor(SocketSession):
    """One call's connection to a daemon. See facts 24 to 27 of the reference for its pitfalls."""

    def __init__(self, switch: SwitchSimulator, leg: Leg, door: Door) -> None:
        super().__init__(switch)
        self._leg = leg
        self._door = door
        self._is_connected = False
        self._is_parked = False
        self._is_left = False
        self._resumes = False
        self._locked = False
        self._linger_seconds = 0
        #: Synchronous applications and those behind a lock, one after the other.
        self._waiting: list[Command] = []
        self._is_busy = False

    async def connect(self) -> None:
        """Reach the daemon, or go on with the dialplan."""
        host, port = self._door.socket or ("", 0)
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, host, port)
        except OSError:
            self._go_on()

    def leg_ended(self) -> None:
        """Say that the call is over, and close, at once or after lingering."""
        if not self._is_connected or self._is_left:
            return
        self._is_left = True
        kind = f"Controlled-Session-UUID: {self._leg.uuid}\nContent-Disposition: "
        if self._linger_seconds:
            linger = f"linger\nLinger-Time: {self._linger_seconds}\n"
            self._notice(f"{kind}{linger}", b"")
            self.switch.clock.later(self._linger_seconds, self._close_finally)
        else:
            self._close_finally()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the daemon's word: called by the event loop."""
        self._transport = transport  # type: ignore[assignment]
        self.switch.clock.later(_SILENCE_SECONDS, self._give_up)

    def connection_lost(self, error: Exception | None) -> None:
        """Let the dialplan go on, where it does: called by the event loop."""
        self._transport = None
        if not self._is_left:
            self._is_left = True
            self._after_loss()

    # What the client says.

    def run(self, command: Command) -> None:
        """Run a command of the daemon."""
        if command.line == "connect":
            self._greet()
        elif not self._is_connected:
            self.reply("-ERR command not found")
        elif command.verb == "sendmsg" and not command.rest:
            self._take_message(command)
        elif command.verb == "linger":
            self._linger_seconds = int(command.rest or 10)
            self.reply(f"+OK will linger {self._linger_seconds} seconds")
        elif command.verb == "myevents":
            self.event_type = JSON if command.rest == "json" else PLAIN
            self.events = {name for name in EVENT_NAMES if name.startswith("CHANNEL_")}
            self.reply("+OK Events Enabled")
        elif command.verb == "resume":
            self._resumes = True
            self.reply("+OK")
        elif command.verb == "exit":
            self.reply("+OK bye")
            self._leave()
        elif command.verb == "api" and not self._door.has_full_control:
            self.reply("-ERR command not found")
        else:
            self.run_welcome(command)

    def _greet(self) -> None:
        self._is_connected = True
        self.switch.clock.later(_PARK_SECONDS, self._park)
        mode = "async" if self._door.is_async else "static"
        names = Names(self._leg.uuid, "", self._leg.from_number, self._leg.to_number)
        headers = socket_form(mode).fill(names) | self._leg.headers("CHANNEL_DATA", "CHANNEL_PARK")
        headers |= self.switch.moment()
        headers["Control"] = "full" if self._door.has_full_control else "single-channel"
        headers["Reply-Text"] = "+OK\n"
        lines = [
            f"{name}: {encoded(str(value)) if name != 'Content-Type' else 'command/reply'}\n"
            for name, value in ({**headers, "Content-Type": ""}).items()
        ]
        self.write("".join([*lines, "\n"]).encode())

    def _take_message(self, command: Command) -> None:
        if self._door.is_async:
            self.reply("+OK")
            if self._locked:
                return  # answered, and not run: it waits behind the locked bridge
            is_bridge = command.headers.get("execute-app-name") == "bridge"
            self._locked = is_bridge and command.headers.get("event-lock") == "true"
            self.switch.take_message(self._leg, command)
            return
        self._waiting.append(command)
        if not self._is_busy:
            self._run_waiting()

    def _run_waiting(self) -> None:
        """Run one application after the other, and answer each when it has ended."""
        self._is_busy = bool(self._waiting)
        if not self._waiting:
            return
        command = self._waiting.pop(0)
        leg = self._leg
        self.switch.take_message(leg, command)

        def look() -> None:
            if leg.is_up and leg.other is not None:
                self.switch.clock.later(_PARK_SECONDS, look)
                return
            self.reply("+OK")
            if command.headers.get("execute-app-name") == "transfer":
                self._leave_for_good()
            self._run_waiting()

        self.switch.soon(look)

    def _park(self) -> None:
        if self._door.is_async and not self._is_left and self._leg.is_up:
            self._is_parked = True
            if not self._leg.has_rung:
                self.switch.park(self._leg)

    def _leave(self) -> None:
        self._is_left = True
        self._close_finally()
        if self._resumes and not self._door.is_async:
            # Seen in 03m: the channel is reset and hangs, without a final response.
            return
        if self._door.is_async and not self._resumes:
            self.switch.soon(self._after_loss)
            return
        self.switch.soon(self._go_on)

    def _leave_for_good(self) -> None:
        self._is_left = True
        self._close_finally()

    def _after_loss(self) -> None:
        if not self._door.is_async or self._is_parked:
            self._go_on()

    def _go_on(self) -> None:
        """Run what the dialplan has after the socket, unless the call is led already."""
        leg = self._leg
        if leg.is_up and not leg.has_rung:
            leg.is_parked = False
            self.switch.run_applications(leg, list(self._door.afterwards))

    def _give_up(self) -> None:
        if not self._is_connected and not self._is_left:
            self._is_left = True
            self._close_finally()

    def _close_finally(self) -> None:
        uuid = self._leg.uuid
        self._notice(
            f"Controlled-Session-UUID: {uuid}\nContent-Disposition: disconnect\n",
            b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n",
        )
        self.close()

    def _notice(self, headers: str, body: bytes) -> None:
        head = f"Content-Type: text/disconnect-notice\n{headers}Content-Length: {len(body)}\n\n"
        self.write(head.encode() + body)
