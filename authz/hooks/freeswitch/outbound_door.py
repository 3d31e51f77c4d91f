"""The outbound socket's waiting calls, handed to the agent that supervises their switch.

A call is only let through if its switch is served here and connected: a live call that nobody can
supervise would end by its first timer at best. Otherwise the socket is left, and the dialplan's
next action refuses the call.
"""

from __future__ import annotations

from collections.abc import Sequence

from authz import log
from authz.hooks.freeswitch.outbound import OutboundCall
from authz.hooks.freeswitch.serving import SwitchServer


class _OwnDoor:
    """Orders to a waiting leg by its own connection."""

    def __init__(self, call: OutboundCall) -> None:
        self._call = call

    async def api(self, line: str) -> str:
        """Run an api command."""
        return await self._call.connection.api(line)

    async def run(self, applications: Sequence[tuple[str, str]]) -> None:
        """Run dialplan applications on the leg; on a synchronous socket each to its end."""
        for application, argument in applications:
            await self._call.execute(application, argument)


class OutboundDoor:
    """Finds the switch of a call that comes by the outbound socket, and has it decided."""

    def __init__(self, servers: Sequence[SwitchServer]) -> None:
        self._servers = tuple(servers)

    async def take(self, call: OutboundCall) -> None:
        """Have a call decided; return when the switch has its orders."""
        server = self._server_of(call.channel.core_uuid)
        if server is None or not call.has_full_control:
            log.event(
                "outbound_call_left",
                level="warning",
                uuid=call.uuid,
                switch=call.channel.get("FreeSWITCH-Switchname"),
                reason="its socket is not `full`" if server else "its switch is not served here",
            )
            return
        decided = server.agent.wait(call.channel, _OwnDoor(call))
        if decided is not None:
            await decided

    def _server_of(self, core_uuid: str) -> SwitchServer | None:
        for server in self._servers:
            connection = server.agent.desk.connection
            if connection is not None and server.link.core_uuid == core_uuid:
                return server
        return None
