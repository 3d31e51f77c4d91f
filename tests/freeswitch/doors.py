"""The HTTP doors of FreeSWITCH on a real listener, engine and store, and what is sent to them.

Requests are those that a FreeSWITCH has sent (see transcripts), with their times moved to now,
because nobody books a call of last year from its record alone. A test that needs another call
changes single values in them.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import xml.etree.ElementTree as ElementTree
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from hook_double import Answer, parse_answers
from world import PriceList, World, per_minute

from authz.config import Settings
from authz.config.freeswitch import FreeswitchSettings, LookupRule
from authz.config.freeswitch_web import FreeswitchWebSettings
from authz.hooks.access import Access
from authz.hooks.freeswitch.web import CDR_PATH, DIALPLAN_PATH, add_freeswitch_routes
from authz.hooks.messages import Limits
from authz.hooks.routes import HookEngine, hook_routes
from authz.hooks.server import HookServer
from freeswitch.transcripts import load

SOON_SECONDS = 90
#: Transcript and place among its HTTP requests.
LOOKUP_ELSEWHERE = ("04a", 0)
LOOKUP = ("04a", 1)
CDR_CALLED_LEG = ("05a", 0)
CDR = ("05a", 1)
CDR_BUSY = ("05b", 1)
CDR_REFUSED = ("05c", 0)
CDR_FORM = ("05f", 1)
LOOKUP_UUID = "3dba1ca3-9860-41d1-845d-84d1e8e0d49b"
CDR_UUID = "845aa49c-e16e-40b3-9c4b-71255e43bd61"
#: The lab's callers are known by their From header alone.
RULES = (
    LookupRule(account="sub", from_user="15550004"),
    LookupRule(account="sub", from_user="15550005"),
)
CONTEXTS = ("credit_curl", "public")

#: When the transcripts were recorded, in seconds since the epoch, and any time of that day, also
#: behind the quotation mark of an encoded form.
_RECORDED_AT = 1_795_350_000
_RECORDED_TIME = re.compile(rb"(?:(?<=%22)|\b)17953[0-9]{5}(?:[0-9]{6})?\b")

Name = tuple[str, int]


class Recorded(NamedTuple):
    """A request that FreeSWITCH has sent: its header lines and its body."""

    headers: list[str]
    body: bytes


def recorded(name: Name) -> Recorded:
    """Return one request of a transcript."""
    return all_recorded(name[0])[name[1]]


def all_recorded(transcript: str) -> list[Recorded]:
    """Return all HTTP requests of a transcript."""
    requests = []
    for chunk in load(transcript).chunks:
        if chunk.channel == "http" and chunk.from_switch:
            head, _, body = chunk.data.partition(b"\r\n\r\n")
            requests.append(Recorded(head.decode().split("\r\n")[1:], _moved_to_now(body)))
    return requests


def _moved_to_now(body: bytes) -> bytes:
    """Return the body with times of the recording as far in the past as they were then."""
    later = int(time.time()) - 3_600 - _RECORDED_AT
    return _RECORDED_TIME.sub(
        lambda match: b"%d" % (int(match[0][:10]) + later) + match[0][10:], body
    )


def lookup(**fields: str) -> bytes:
    """Return the lookup of a waiting call with other values of some fields.

    Underscores of a field's name stand for hyphens, except in channel variables.
    """
    wanted = {
        name if name.startswith("variable_") else name.replace("_", "-"): value
        for name, value in fields.items()
    }
    pairs = recorded(LOOKUP).body.decode().split("&")
    kept = [pair for pair in pairs if pair.partition("=")[0] not in wanted]
    return "&".join([*kept, *(f"{name}={quote(one)}" for name, one in wanted.items())]).encode()


def cdr(name: Name = CDR, **variables: str | None) -> bytes:
    """Return a recorded CDR with other variables, encoded as the switch does; None removes one."""
    tree = json.loads(recorded(name).body)
    for variable, value in variables.items():
        tree["variables"].pop(variable, None)
        if value is not None:
            tree["variables"][variable] = quote(value, safe="/,")
    return json.dumps(tree).encode()


class Document:
    """A dialplan that was answered; it must be one."""

    def __init__(self, answer: Answer) -> None:
        assert answer.status == 200, answer
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
        self.port = 0
        self._listener: asyncio.Server | None = None
        self._server: HookServer | None = None

    async def open(
        self,
        *,
        access: Access | None = None,
        limits: Limits | None = None,
        engine: HookEngine | None = None,
        web: FreeswitchWebSettings | None = None,
        **freeswitch: Any,
    ) -> Door:
        """Serve with these settings, in place of those before."""
        await self.close()
        words = {"contexts": CONTEXTS, "rules": RULES, **freeswitch}
        settings: Settings = msgspec.structs.replace(
            self.world.settings,
            freeswitch=FreeswitchSettings(**words),
            freeswitch_web=web or FreeswitchWebSettings(),
        )
        routes = hook_routes(engine or self.world.engine, lambda: None)
        add_freeswitch_routes(routes, engine or self.world.engine, settings)
        limits = limits or Limits(body_bytes_max=settings.hook.body_bytes_max)
        self._server = HookServer(routes, access=access or Access(), limits=limits)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server.protocol, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """Serve no more."""
        if self._listener is not None and self._server is not None:
            self._listener.close()
            self._server.close()
            await asyncio.sleep(0)

    async def post(self, path: str, request: Recorded) -> Answer:
        """Send one request on a connection of its own, as the switch does."""
        lines = [f"POST {path} HTTP/1.1", *request.headers]
        async with asyncio.timeout(SOON_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + request.body)
            writer.write_eof()
            data = await reader.read()
            writer.close()
        [answer] = parse_answers(data)
        return answer

    async def ask(self, body: bytes | None = None, name: Name = LOOKUP) -> Document:
        """Ask for a dialplan: a recorded question, or its headers with another body."""
        return Document(await self.post(DIALPLAN_PATH, _with_body(name, body)))

    async def report(self, body: bytes | None = None, name: Name = CDR) -> Answer:
        """Send a CDR: a recorded one, or its headers with another body."""
        return await self.post(f"{CDR_PATH}?uuid=a_{CDR_UUID}", _with_body(name, body))


async def lab(world: World, **config: Any) -> Door:
    """Return a door on a business whose sub-account may call the lab's numbers, 3… and 4…."""
    await world.pair(**config)
    world.decks["retail"] = PriceList(
        {"1": per_minute("0.01"), "3": per_minute("0.06", 1), "4": per_minute("0.06", 1)}
    )
    world.decks["wholesale"] = PriceList(
        {"1": per_minute("0.005", 6), "3": per_minute("0.03", 1), "4": per_minute("0.03", 1)}
    )
    return await Door(world).open()


def _with_body(name: Name, body: bytes | None) -> Recorded:
    request = recorded(name)
    if body is None:
        return request
    others = [line for line in request.headers if not line.startswith("Content-Length")]
    return Recorded([*others, f"Content-Length: {len(body)}"], body)
