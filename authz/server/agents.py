"""The agents process: serves the switches that are supervised over a connection of our own.

Any number of hosts may name the same switch: a lease in the store says which process serves it.
Kazoo's brokers hand each question to one of those who are connected.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from typing import Final

from authz import meters
from authz.hooks.freeswitch.outbound import OutboundServer
from authz.hooks.freeswitch.outbound_door import OutboundDoor
from authz.hooks.freeswitch.serving import SwitchServer
from authz.hooks.freeswitch.settling import Settler
from authz.hooks.kazoo.serving import KazooServer, broker_users
from authz.server import child
from authz.server.collector import settle_memory
from authz.server.engine_host import EngineHost

#: How often it is looked whether waiting calls can be taken.
_LOOK_SECONDS: Final = 0.1
_SWITCHES: Final = meters.gauge("authz_freeswitch_switches")
_SERVED: Final = meters.gauge("authz_freeswitch_served")
_CONNECTED: Final = meters.gauge("authz_freeswitch_connected")
_CALLS: Final = meters.gauge("authz_freeswitch_calls")
_SETTLES_WAITING: Final = meters.gauge("authz_freeswitch_settles_waiting")
_KAZOO_CONNECTED: Final = meters.gauge("authz_kazoo_connected")
_LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class AgentsService:
    """The `Service` of the agents process."""

    def __init__(self, host: EngineHost) -> None:
        """Serve the switches of the host's settings."""
        settings = host.settings.freeswitch
        self._host = host
        self._settler = Settler(host.engine)
        owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._servers = [
            SwitchServer(switch, settings, host.engine, self._settler, owner)
            for switch in settings.switches
        ]
        kazoo = host.settings.kazoo
        self._kazoo = KazooServer(kazoo, broker_users(host.engine, kazoo, owner))
        self._kazoo_task: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._outbound = OutboundServer(
            OutboundDoor(self._servers).take,
            allow=tuple(map(ipaddress.ip_network, settings.outbound_allow)) or _LOOPBACK,
        )

    async def serve(self, listeners: Mapping[str, socket.socket]) -> None:
        """Ask for the switches' leases, and take calls on the listening sockets."""
        settle_memory()
        loop = asyncio.get_running_loop()
        self._kazoo_task = loop.create_task(self._kazoo.run())
        self._tasks = [loop.create_task(server.run()) for server in self._servers]
        for listener in listeners.values():
            self._tasks.append(loop.create_task(self._accept(listener)))

    async def _accept(self, listener: socket.socket) -> None:
        """Take calls while a switch is supervised here: others' wait for who supervises them.

        A predecessor that drains, or a standby, listens on the same socket.
        """
        is_listening = False
        while True:
            can_supervise = any(server.is_connected for server in self._servers)
            if can_supervise and not is_listening:
                await self._outbound.listen(listener.dup())
            elif is_listening and not can_supervise:
                self._outbound.pause()
            is_listening = can_supervise
            await asyncio.sleep(_LOOK_SECONDS)

    def publish(self) -> None:
        """Set the gauges of the agents."""
        _SWITCHES.set(len(self._servers))
        _SERVED.set(sum(server.is_served for server in self._servers))
        _CONNECTED.set(sum(server.is_connected for server in self._servers))
        _CALLS.set(sum(len(server.agent.legs) for server in self._servers))
        _SETTLES_WAITING.set(self._settler.waiting)
        _KAZOO_CONNECTED.set(sum(broker.is_up for broker in self._kazoo.brokers))

    def adopt(self, connection: socket.socket) -> None:
        """Refuse: connections are only passed to workers."""
        connection.close()

    async def drain(self, limit_seconds: int) -> None:
        """Decide nothing new, finish what is under way, leave the switches to the next process."""
        for task in self._tasks[len(self._servers) :]:
            task.cancel()
        await self._outbound.close()
        await asyncio.gather(
            self._kazoo.drain(limit_seconds),
            *(server.drain(limit_seconds) for server in self._servers),
        )
        await self._settler.drain(limit_seconds)

    async def close(self) -> None:
        """Let go of the switches and the brokers, and close the engine."""
        tasks = [*self._tasks, *([self._kazoo_task] if self._kazoo_task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._kazoo.close()
        await self._host.close()


if __name__ == "__main__":
    # The wiring knows every part; this module is one of them.
    from authz.server.wiring import build_agents

    sys.exit(child.main(build_agents))
