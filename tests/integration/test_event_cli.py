"""`authz event`, `recharge`, `webhook` and `delivery` on a real store and its archive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from archives import drain_all, open_archive
from audit_helper import assert_clean_audit
from command_line import CommandLine
from receivers import open_inbox
from sqlalchemy import insert

from authz.event_types import EVENT_TYPES
from authz.ledger.archive import Archive
from authz.ledger.schema import deliveries
from authz.store.client import StoreClient


class Cli(CommandLine):
    """The command line with a store and an archive of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], url: str, directory: Path) -> None:
        super().__init__(capsys)
        self._url = url
        self._directory = directory

    def with_archive(self, work: Callable[[Archive], Awaitable[object]]) -> None:
        """Do something as the office would."""

        async def run() -> None:
            client = await StoreClient.connect(self._url)
            async with open_archive(client, self._directory, None, keep_seconds=600) as archive:
                await work(archive)
            await client.close()

        asyncio.run(run())

    def fall_low(self) -> None:
        """Let `acme` ask for a recharge and be low, and archive that."""
        self.ok(
            "account", "create", "acme", "low_balance.threshold=5",
            "auto_recharge.threshold=5", "auto_recharge.amount=20",
        )  # fmt: skip
        self.ok("credit", "acme", "10")
        self.ok("debit", "acme", "6")
        self.with_archive(drain_all)


@pytest.fixture
def cli(
    store_url: str,
    plain_logging: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[Cli]:
    monkeypatch.setenv("AUTHZ_STORE__URL", store_url)
    monkeypatch.setenv("AUTHZ_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("AUTHZ_WEBHOOKS__ALLOW_PRIVATE", "true")
    cli = Cli(capsys, store_url, tmp_path)
    yield cli

    async def audit(archive: Archive) -> None:
        await assert_clean_audit(archive._client, archive)

    cli.with_archive(audit)


def test_events_are_listed_and_followed(cli: Cli) -> None:
    cli.fall_low()
    events = cli.json("event", "list", "--account", "acme")["events"]
    assert {one["event"] for one in events} == {"balance.low", "recharge.due"}
    table = cli.ok("event", "list", "--event", "balance.*")
    assert "balance=4 threshold=5" in table
    assert "recharge" not in table
    assert cli.json("event", "list", "--limit", "1")["cursor"]
    assert "event" in cli.error("event", "list", "--event", "nonsense")
    assert "limit" in cli.error("event", "list", "--limit", "0")
    followed = cli.ok("event", "tail", "--seconds", "1", "--json")
    assert followed.splitlines() == [] or json.loads(followed.splitlines()[0])["account"] == "acme"
    assert len(cli.json("event", "types")) == len(EVENT_TYPES)
    assert "balance.low" in cli.ok("event", "types")


def test_recharges_are_answered_by_hand(cli: Cli) -> None:
    cli.fall_low()
    assert [one["id"] for one in cli.json("recharge", "list", "--state", "pending")] == ["acme-1"]
    assert "acme-1" in cli.ok("recharge", "list", "--account", "acme")
    assert "is of 20" in cli.error("recharge", "succeeded", "acme-1", "--amount", "21")
    assert "has failed." in cli.ok("recharge", "failed", "acme-1", "--detail", "declined")
    assert "has failed already." in cli.ok("recharge", "failed", "acme-1")
    assert "24" in cli.ok("recharge", "succeeded", "acme-1")
    assert cli.json("recharge", "succeeded", "acme-1")["duplicate"] is True
    assert "credited already" in cli.error("recharge", "failed", "acme-1")
    assert "no recharge" in cli.error("recharge", "succeeded", "acme-9")
    assert cli.json("recharge", "list") == []


def test_webhooks_are_kept(cli: Cli) -> None:
    made = cli.json("webhook", "add", "crm", "https://crm.example.net/", "--event", "balance.*")
    assert made["secret"].startswith("whsec_")
    assert "https://crm.example.net/" in cli.ok("webhook", "list")
    changed = cli.ok("webhook", "add", "crm", "https://crm.example.net/2", "--account", "acme")
    assert made["secret_hint"] in changed
    rotated = cli.json("webhook", "rotate", "crm")
    assert rotated["secret"] != made["secret"]
    (listed,) = cli.json("webhook", "list")
    assert (listed["account"], listed.get("secret")) == ("acme", None)
    assert "url" in cli.error("webhook", "add", "bad", "ftp://example.net/")
    assert "events" in cli.error("webhook", "add", "bad", "https://x.net/", "--event", "x")
    assert "is removed" in cli.ok("webhook", "remove", "crm", "--yes")
    assert "no webhook" in cli.error("webhook", "remove", "crm", "--yes")
    assert cli.json("webhook", "list") == []


async def test_a_receiver_is_tried_out(cli: Cli) -> None:
    async with open_inbox() as inbox:
        secret = (await asyncio.to_thread(cli.json, "webhook", "add", "crm", inbox.url))["secret"]
        assert "took it" in await asyncio.to_thread(cli.ok, "webhook", "test", "crm")
        assert inbox.verified(secret)["type"] == "webhook.test"
    assert "did not take it" in await asyncio.to_thread(cli.error, "webhook", "test", "crm")


def test_dead_letters_are_sent_again(cli: Cli) -> None:
    cli.fall_low()
    event_id = cli.json("event", "list", "--event", "balance.low")["events"][0]["id"]
    row = {
        "event_id": event_id, "channel": "webhook", "target": "crm", "state": "dead",
        "attempts": 15, "next_attempt_at": 1, "last_error": "500 boom", "created_at": 1,
        "delivered_at": None,
    }  # fmt: skip

    async def bury(archive: Archive) -> None:
        async with archive.database.write() as connection:
            await connection.execute(
                insert(deliveries), [{**row, "id": f"dlv_{number}"} for number in range(3)]
            )

    cli.with_archive(bury)
    cli.ok("webhook", "add", "crm", "https://crm.example.net/")
    assert "500 boom" in cli.ok("delivery", "list", "--state", "dead")
    assert "is sent again" in cli.ok("delivery", "retry", "dlv_0")
    assert "2 deliveries" in cli.ok("webhook", "retry", "crm")
    listed = cli.json("delivery", "list", "--target", "crm")["deliveries"]
    assert {one["state"] for one in listed} == {"pending"}
    assert "no delivery" in cli.error("delivery", "retry", "dlv_9")


def test_without_an_archive_it_says_so(cli: Cli) -> None:
    assert "archive" in cli.error("event", "list")
    assert "archive" in cli.error("delivery", "list")
    assert cli.json("webhook", "list") == []
