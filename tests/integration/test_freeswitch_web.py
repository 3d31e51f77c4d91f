"""mod_xml_curl and mod_json_cdr against the real listener, engine and store.

The requests in tests/data/freeswitch are what a FreeSWITCH 1.10.12 has sent, byte for byte; a test
that needs another call changes single values in them.
"""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hook_double import Answer, parse_answers
from world import PriceList, World, per_minute

from authz.config import Settings
from authz.config.freeswitch import FreeswitchSettings, LookupRule
from authz.config.freeswitch_web import FreeswitchWebSettings
from authz.hooks.access import Access
from authz.hooks.freeswitch.web import CDR_PATH, DIALPLAN_PATH, add_freeswitch_routes
from authz.hooks.messages import Limits
from authz.hooks.routes import hook_routes
from authz.hooks.server import HookServer

DATA = Path(__file__).resolve().parents[1] / "data" / "freeswitch"
SOON_SECONDS = 20
WAITING_UUID = "3dba1ca3-9860-41d1-845d-84d1e8e0d49b"
ANSWERED_UUID = "845aa49c-e16e-40b3-9c4b-71255e43bd61"
#: The lab's callers are known by their From header alone.
RULES = (
    LookupRule(account="sub", from_user="15550004"),
    LookupRule(account="sub", from_user="15550005"),
)
TOKEN = "cdrpass-of-at-least-16"


def recorded(name: str) -> tuple[list[str], bytes]:
    """Return the header lines (without the request line) and the body of a recorded request."""
    head, _, body = (DATA / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    return head.decode().split("\r\n")[1:], body


def lookup(**fields: str) -> bytes:
    """Return the recorded lookup of a waiting call with other values of some fields.

    Underscores of a field's name stand for hyphens, except in channel variables.
    """
    _, body = recorded("lookup_waiting")
    wanted = {
        name if name.startswith("variable_") else name.replace("_", "-"): value
        for name, value in fields.items()
    }
    pairs = [pair for pair in body.decode().split("&") if pair.partition("=")[0] not in wanted]
    return "&".join([*pairs, *(f"{name}={quote(one)}" for name, one in wanted.items())]).encode()


def cdr(name: str = "cdr_answered", **variables: str | None) -> bytes:
    """Return a recorded CDR with other variables, encoded as the switch does; None removes one."""
    _, body = recorded(name)
    tree = json.loads(body)
    for variable, value in variables.items():
        tree["variables"].pop(variable, None)
        if value is not None:
            tree["variables"][variable] = quote(value, safe="/,")
    return json.dumps(tree).encode()


class Document:
    """A dialplan that was answered."""

    def __init__(self, answer: Answer) -> None:
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/xml"
        self.root = ElementTree.fromstring(answer.body)
        assert self.root.tag == "document"
        assert self.root.get("type") == "freeswitch/xml"

    @property
    def is_not_found(self) -> bool:
        """Whether the switch goes on with its own dialplan."""
        result = self.root.find("./section[@name='result']/result")
        return result is not None and result.get("status") == "not found"

    @property
    def context(self) -> str | None:
        """The context that the document has an extension for."""
        found = self.root.find("./section[@name='dialplan']/context")
        return None if found is None else found.get("name")

    @property
    def actions(self) -> list[tuple[str, str]]:
        """The applications in their order."""
        return [(one.attrib["application"], one.attrib["data"]) for one in self.root.iter("action")]

    @property
    def variables(self) -> dict[str, str]:
        """What is set on the channel."""
        pairs = [data.partition("=") for name, data in self.actions if name == "set"]
        return {name: value for name, _, value in pairs}

    @property
    def ending(self) -> tuple[str, str]:
        """The last application, which decides where the call goes."""
        return self.actions[-1]


class Door:
    """The hook listener of a world, on a socket of this host."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._listener: asyncio.Server | None = None
        self._server: HookServer | None = None
        self.port = 0

    async def open(
        self,
        *,
        access: Access | None = None,
        limits: Limits | None = None,
        engine: Any = None,
        bridge: str | None = None,
        longest_call_seconds: int = 7_200,
        **freeswitch: Any,
    ) -> None:
        """Serve with these settings."""
        words = {"contexts": ("credit_curl", "public"), "rules": RULES, **freeswitch}
        settings: Settings = msgspec.structs.replace(
            self.world.settings,
            freeswitch=FreeswitchSettings(**words),
            freeswitch_web=FreeswitchWebSettings(
                bridge=bridge, longest_call_seconds=longest_call_seconds
            ),
        )
        routes = hook_routes(engine or self.world.engine, lambda: None)
        add_freeswitch_routes(routes, engine or self.world.engine, settings)
        self._server = HookServer(routes, access=access or Access(), limits=limits)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server.protocol, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Serve no more."""
        if self._listener is not None and self._server is not None:
            self._listener.close()
            self._server.close()
            await asyncio.sleep(0)

    async def post(self, path: str, body: bytes, headers: list[str]) -> Answer:
        """Send one request on a connection of its own, as the switch does."""
        lines = [f"POST {path} HTTP/1.1", *headers]
        async with asyncio.timeout(SOON_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            writer.write_eof()
            data = await reader.read()
            writer.close()
        [answer] = parse_answers(data)
        return answer

    async def replay(self, path: str, name: str) -> Answer:
        """Send a recorded request as it is."""
        headers, body = recorded(name)
        return await self.post(path, body, headers)

    async def ask(self, body: bytes) -> Document:
        """Ask for a dialplan."""
        return Document(await self.post(DIALPLAN_PATH, body, _headers("lookup_waiting", body)))

    async def report(self, body: bytes, name: str = "cdr_answered") -> Answer:
        """Send a CDR."""
        return await self.post(f"{CDR_PATH}?uuid=x", body, _headers(name, body))


def _headers(name: str, body: bytes) -> list[str]:
    headers, _ = recorded(name)
    others = [line for line in headers if not line.startswith("Content-Length")]
    return [*others, f"Content-Length: {len(body)}"]


@pytest.fixture
async def door(world: World) -> AsyncIterator[Callable[..., Any]]:
    """Open a door on a world with a sub-account and a master that may call the lab's numbers."""
    await world.pair()
    world.decks["retail"] = PriceList(
        {"1": per_minute("0.01"), "3": per_minute("0.06", 1), "4": per_minute("0.06", 1)}
    )
    world.decks["wholesale"] = PriceList(
        {"1": per_minute("0.005", 6), "3": per_minute("0.03", 1), "4": per_minute("0.03", 1)}
    )
    doors: list[Door] = []

    async def open_door(**settings: Any) -> Door:
        doors.append(Door(world))
        await doors[-1].open(**settings)
        return doors[-1]

    yield open_door
    for one in doors:
        await one.close()


OpenDoor = Callable[..., Any]


# mod_xml_curl


async def test_the_recorded_lookups_are_decided_once(door: OpenDoor, world: World) -> None:
    opened = await door(contexts=("credit_curl",))
    assert Document(await opened.replay(DIALPLAN_PATH, "lookup_other_context")).is_not_found

    document = Document(await opened.replay(DIALPLAN_PATH, "lookup_waiting"))

    assert document.context == "credit_curl"
    assert document.variables == {
        "hangup_after_bridge": "true",
        "authz_account": "sub",
        "authz_direction": "outbound",
        "authz_to": "4001",
        "authz_call": "${uuid}",
        "authz_reason": "ok",
        # 7,200 s cost 7.20, which both have; `+N` may take half a second longer.
        "execute_on_answer": "sched_hangup +7199 allotted_timeout",
        "call_timeout": "180",
    }
    assert document.ending == ("transfer", "4001 XML authorized")
    again = Document(await opened.replay(DIALPLAN_PATH, "lookup_waiting"))
    assert again.actions == document.actions
    assert (await world.state("sub")).calls == 1
    await world.settle(WAITING_UUID, 0)
