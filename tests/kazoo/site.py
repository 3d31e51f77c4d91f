"""A Kazoo platform beside `authz serve`: all that it sees is the broker, the CLI and the APIs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from audit_helper import assert_clean_audit
from daemons import Daemon
from processes import until
from rabbitmq import RabbitServer

from authz.hooks.kazoo.encoding import to_gregorian
from authz.money import MICROS_PER_UNIT
from authz.store.client import StoreClient
from kazoo.ecallmgr import Ecallmgr

_TRIES_MAX: Final = 1_800
_PAUSE_SECONDS: Final = 0.05
_PAGE: Final = 500
_UNAVAILABLE: Final = 503

#: What one call was charged to an account, in micros, oldest first.
Charges = list[int]


class KazooSite:
    """A daemon on a broker, an ecallmgr, and an operator who has the CLI and the admin API."""

    def __init__(
        self, daemon: Daemon, config: Path, rabbit: RabbitServer, session: aiohttp.ClientSession
    ) -> None:
        self.daemon = daemon
        self.ecallmgr: Ecallmgr
        #: What the ecallmgr says that it has when it is asked.
        self.channels: dict[str, dict[str, Any]] = {}
        self.config = config
        self._rabbit = rabbit
        self._session = session

    async def start(self) -> Self:
        """Start everything; return when questions are answered."""
        await self.daemon.start()
        await self.daemon.ready()
        await self.connect()
        await until(lambda: self.connects == 1)
        return self

    async def connect(self) -> None:
        """Bring the ecallmgr to the broker, also after that was gone."""
        self.ecallmgr = await Ecallmgr.connect(self._rabbit.url)
        await self.ecallmgr.serve_channels(self.channels)
        await self.ecallmgr.serve_metaflow()

    @property
    def connects(self) -> int:
        """How many times an agents process has come to the broker; the office does so too."""
        connected = self.daemon.logged("kazoo_connected")
        return sum(event["process"] == "agents" for event in connected)

    # The operator.

    async def run(self, *arguments: str) -> str:
        """Run a command that must succeed, and return what it prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "authz", "--config", str(self.config), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "AUTHZ_STATE_DIR": str(self.daemon.state_dir)},
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (out.decode(), err.decode())
        return out.decode()

    async def admin(self, method: str, path: str, **how: Any) -> Any:
        """Ask the admin API, which must agree, but may have to wait for its archive."""
        url = f"{self.daemon.admin}/v1/{path}"
        for _ in range(_TRIES_MAX):
            async with self._session.request(method, url, **how) as response:
                answer = await response.json(content_type=None)
                if response.status != _UNAVAILABLE:
                    break
            await asyncio.sleep(_PAUSE_SECONDS)
        assert response.status < 300, answer
        return answer

    async def import_rates(self, directory: Path, rates: str) -> None:
        """Make the decks `retail` and `wholesale` of Kazoo's CSV."""
        path = directory / "rates.csv"
        path.write_text(rates)
        await self.run("kazoo", "import-rates", "retail", str(path))
        await self.run("kazoo", "import-rates", "wholesale", str(path), "--internal")

    async def import_documents(self, directory: Path, documents: list[dict[str, Any]]) -> None:
        """Take over limits and account documents, as rows of Kazoo's database."""
        path = directory / "documents.json"
        path.write_text(json.dumps({"rows": [{"doc": one} for one in documents]}))
        await self.run("kazoo", "import-limits", str(path))

    async def equip(self, account: str, deck: str, credit: str = "0") -> None:
        """Give an account its deck and credit."""
        await self.admin("PATCH", f"accounts/{account}", json={"deck": deck})
        if credit != "0":
            body = {"amount": credit, "kind": "payment", "reference": "kazoo-takeover"}
            await self.admin("POST", f"accounts/{account}/credits", json=body)

    # The books.

    async def charges(self, account: str) -> dict[str, Charges]:
        """Return what each call was charged to an account."""
        page = await self.admin("GET", f"accounts/{account}/transactions?sort=booked&limit={_PAGE}")
        assert page["cursor"] is None
        found: dict[str, Charges] = {}
        for one in page["transactions"]:
            if one["kind"] == "call":
                micros = Decimal(one["amount"]) * -MICROS_PER_UNIT
                found.setdefault(one["call_id"], []).append(int(micros))
        return found

    async def until_charged(self, account: str, expected: Mapping[str, Charges]) -> None:
        """Return when an account's calls were charged so, and no others."""
        for _ in range(_TRIES_MAX):
            found = await self.charges(account)
            if found == expected:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        assert found == expected

    async def balance_micros(self, account: str) -> int:
        """Return what an account has."""
        answer = await self.admin("GET", f"accounts/{account}/balance")
        return int(Decimal(answer["balance"]) * MICROS_PER_UNIT)

    async def until_no_calls(self, account: str) -> None:
        """Return when an account and everybody below it have no open call, and nothing held."""
        for _ in range(_TRIES_MAX):
            answer = await self.admin("GET", f"accounts/{account}/balance")
            if answer["calls"] == 0:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
        assert (answer["calls"], answer["held"]) == (0, "0")

    async def audit(self) -> None:
        """Fail unless all invariants hold."""
        client = await StoreClient.connect(self.daemon.store_url)
        await assert_clean_audit(client)
        await client.close()

    # The switch.

    async def tell(self, name: str, answer: Mapping[str, Any], **fields: Any) -> None:
        """Tell of an event of a channel that was answered so and bears the answer's words."""
        words = ("Account-ID", "Account-Billing", "Reseller-ID", "Reseller-Billing")
        variables = {
            **fields.pop("variables", {}),
            **{word: answer[word] for word in words if word in answer},
            "Ecallmgr-Node": self.ecallmgr.node,
        }
        await self.ecallmgr.tell(
            name,
            answer["Call-ID"],
            Call_Direction=answer["Call-Direction"],
            Timestamp=fields.pop("Timestamp", to_gregorian(int(time.time()))),
            Custom_Channel_Vars=variables,
            **fields,
        )


@contextlib.asynccontextmanager
async def kazoo_site(
    rabbit: RabbitServer, directory: Path, *options: str, **environ: str
) -> AsyncIterator[KazooSite]:
    """Yield a running site without accounts; the audit is its end."""
    config = directory / "authz.toml"
    config.write_text(
        f'[kazoo]\nmode = "active"\nnode = "authz@walk"\nbrokers = [{{ url = "{rabbit.url}" }}]\n'
    )
    environ = {"AUTHZ_CONFIG": str(config), **environ}
    daemon = Daemon(directory / "state", *options, **environ)
    async with aiohttp.ClientSession() as session:
        try:
            site = await KazooSite(daemon, config, rabbit, session).start()
            yield site
            await site.audit()
            await site.ecallmgr.close()
        finally:
            status = await daemon.stop()
    assert status == 0


__all__ = ["Charges", "KazooSite", "kazoo_site"]
