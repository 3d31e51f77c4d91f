"""Events, webhooks, deliveries and recharges over the admin API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from admin_site import AdminSite, open_site
from archives import drain_all
from audit_helper import assert_clean_audit
from sqlalchemy import insert

from authz.config.sections import AdminSettings
from authz.events.endpoints import ENDPOINTS_MAX, WebhookBody, WebhookDirectory
from authz.events.signing import new_secret
from authz.ledger.schema import deliveries

URL = "https://crm.example.net/authz"
RECHARGE = {"threshold": "5", "amount": "20"}


class Api:
    """An operator's client of one site."""

    def __init__(self, site: AdminSite, session: aiohttp.ClientSession) -> None:
        self.site = site
        self.session = session

    async def ask(
        self, method: str, path: str, body: Any = None, token: str = ""
    ) -> tuple[int, Any]:
        """Return status and document."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.request(
            method, self.site.url + path, json=body, headers=headers
        ) as answer:
            return answer.status, await answer.json(content_type=None)

    async def ok(self, method: str, path: str, body: Any = None, **options: str) -> Any:
        """Return the document of what must succeed."""
        status, document = await self.ask(method, path, body, **options)
        assert status < 300, document
        return document

    async def problem(
        self, method: str, path: str, body: Any = None, **options: str
    ) -> tuple[int, str, str | None]:
        """Return status, reason and field of what must fail."""
        status, document = await self.ask(method, path, body, **options)
        assert status >= 400, document
        return status, document["reason"], document.get("field")

    async def fall_low(self, account: str, **fields: Any) -> None:
        """Let an account fall through both thresholds, and archive that."""
        config = {"low_balance": {"threshold": "5"}, "auto_recharge": RECHARGE, **fields}
        await self.ok("PUT", f"/v1/accounts/{account}", config)
        credit = {"amount": "10", "kind": "payment", "reference": "r1"}
        await self.ok("POST", f"/v1/accounts/{account}/credits", credit)
        debit = {"amount": "6", "kind": "manual", "reference": "r2", "scope": "self"}
        await self.ok("POST", f"/v1/accounts/{account}/debits", debit)
        await drain_all(self.site.archive)


@pytest.fixture
async def api(store_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with (
        open_site(store_url, tmp_path, AdminSettings()) as site,
        aiohttp.ClientSession() as session,
    ):
        yield Api(site, session)
        await assert_clean_audit(site.client, site.archive)


# --- recharges -------------------------------------------------------------------------------


async def test_a_recharge_is_answered_over_the_api(api: Api) -> None:
    await api.fall_low("acme")
    (due,) = (await api.ok("GET", "/v1/recharges?state=pending"))["recharges"]
    assert (due["id"], due["account"], due["amount"]) == ("acme-1", "acme", "20")
    assert (await api.problem("POST", "/v1/recharges/acme-1/succeeded", {"amount": "1"}))[0] == 409
    first = await api.ok("POST", "/v1/recharges/acme-1/succeeded", {"amount": "20.0"})
    again = await api.ok("POST", "/v1/recharges/acme-1/succeeded")
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert first["legs"][0]["balance"] == "24"
    assert (await api.problem("POST", "/v1/recharges/acme-1/failed"))[:2] == (409, "conflict")
    for unknown in ("acme-2", "nobody-1", "acme"):
        for verb in ("succeeded", "failed"):
            problem = await api.problem("POST", f"/v1/recharges/{unknown}/{verb}")
            assert problem[:2] == (404, "not_found")
    assert (await api.ok("GET", "/v1/recharges?account=acme"))["recharges"] == []


async def test_a_failed_recharge_is_noted_over_the_api(api: Api) -> None:
    await api.fall_low("acme")
    answer = await api.ok("POST", "/v1/recharges/acme-1/failed", {"detail": "declined"})
    assert answer == {
        "recharge": "acme-1", "account": "acme", "state": "failed", "duplicate": False,
    }  # fmt: skip
    assert (await api.ok("POST", "/v1/recharges/acme-1/failed"))["duplicate"]
    await drain_all(api.site.archive)
    (event,) = (await api.ok("GET", "/v1/events?event=recharge.failed"))["events"]
    assert event["data"] == {"recharge": "acme-1", "amount": "20", "detail": "declined"}
    too_long = {"detail": "x" * 161}
    assert (await api.problem("POST", "/v1/recharges/acme-1/failed", too_long))[2] == "detail"


async def test_a_token_of_a_tree_sees_and_answers_only_its_own(api: Api) -> None:
    await api.fall_low("acme")
    await api.fall_low("acme-sales", parent="acme")
    await api.fall_low("other")
    await api.ok("PUT", "/v1/webhooks/crm", {"url": URL})
    token = await api.site.token("portal", "operate", "acme")
    events = (await api.ok("GET", "/v1/events", token=token))["events"]
    assert {one["account"] for one in events} == {"acme", "acme-sales"}
    events = (await api.ok("GET", "/v1/events?account=acme-sales", token=token))["events"]
    assert {one["account"] for one in events} == {"acme-sales"}
    assert (await api.problem("GET", "/v1/events?account=other", token=token))[0] == 404
    path = "/v1/recharges/{}/succeeded"
    assert (await api.ok("POST", path.format("acme-sales-1"), token=token))["posted"]
    assert (await api.problem("POST", path.format("acme-1"), token=token))[0] == 403
    unknown = await api.ask("POST", path.format("nobody-1"), token=token)
    assert await api.ask("POST", path.format("other-1"), token=token) == unknown
    for method, where in (
        ("GET", "/v1/webhooks"), ("PUT", "/v1/webhooks"), ("POST", "/v1/webhooks/crm/rotate"),
        ("GET", "/v1/deliveries"), ("DELETE", "/v1/webhooks/crm"),
    ):  # fmt: skip
        body = {"webhooks": []} if method == "PUT" else None
        assert (await api.problem(method, where, body, token=token))[0] == 403
    reader = await api.site.token("reader", "read")
    assert (await api.problem("GET", "/v1/webhooks", token=reader))[0] == 403
    assert (await api.problem("POST", path.format("other-1"), token=reader))[0] == 403


# --- events, deliveries ----------------------------------------------------------------------


async def test_events_are_read_in_pages_and_deliveries_replayed(api: Api) -> None:
    await api.fall_low("acme")
    page = await api.ok("GET", "/v1/events?limit=1")
    rest = await api.ok("GET", f"/v1/events?cursor={page['cursor']}")
    names = [one["event"] for one in (*page["events"], *rest["events"])]
    assert sorted(names) == ["balance.low", "recharge.due"]
    event_id = page["events"][0]["id"]
    row = {
        "id": "dlv_1", "event_id": event_id, "channel": "webhook", "target": "crm",
        "state": "dead", "attempts": 15, "next_attempt_at": 1, "last_error": "500",
        "created_at": 1_700_000_000, "delivered_at": None,
    }  # fmt: skip
    async with api.site.archive.database.write() as connection:
        await connection.execute(insert(deliveries), [row, {**row, "id": "dlv_2"}])
    dead = await api.ok("GET", f"/v1/deliveries?state=dead&event_id={event_id}")
    assert [one["id"] for one in dead["deliveries"]] == ["dlv_2", "dlv_1"]
    again = await api.ok("POST", "/v1/deliveries/dlv_1/retry")
    assert (again["state"], again["attempts"]) == ("pending", 0)
    await api.ok("PUT", "/v1/webhooks/crm", {"url": URL})
    assert await api.ok("POST", "/v1/webhooks/crm/retry") == {"deliveries": 1}
    assert (await api.problem("POST", "/v1/deliveries/nothing/retry"))[0] == 404
    for query, field in (
        ("events?limit=0", "limit"), ("events?event=x%20y", "event"), ("events?sort=up", "sort"),
        ("deliveries?state=lost", "state"), ("deliveries?target=a%00b", "target"),
        ("deliveries?cursor=zzzz", "cursor"), ("events?nonsense=1", "nonsense"),
    ):  # fmt: skip
        assert (await api.problem("GET", f"/v1/{query}"))[::2] == (400, field)


# --- webhooks --------------------------------------------------------------------------------


async def test_webhooks_are_kept_and_their_secrets_told_once(api: Api) -> None:
    status, made = await api.ask("PUT", "/v1/webhooks/crm", {"url": URL, "events": ["balance.*"]})
    assert (status, made["secret"][:6], made["enabled"]) == (201, "whsec_", True)
    view = await api.ok("GET", "/v1/webhooks/crm")
    assert "secret" not in view
    assert view["secret_hint"] == f"whsec_…{made['secret'][-4:]}"
    status, again = await api.ask("PUT", "/v1/webhooks/crm", {"url": URL})
    assert (status, again.get("secret"), again["events"]) == (200, None, [])
    assert again["secret_hint"] == view["secret_hint"]
    rotated = await api.ok("POST", "/v1/webhooks/crm/rotate")
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_secret_until"] is not None
    endpoint = await api.site.services.webhooks.find("crm")
    assert endpoint.secrets_at(endpoint.created_at) == [rotated["secret"], made["secret"]]
    assert endpoint.secrets_at(endpoint.previous_until) == [rotated["secret"]]
    mine = new_secret()
    assert "secret" not in await api.ok("PUT", "/v1/webhooks/crm", {"url": URL, "secret": mine})
    assert (await api.site.services.webhooks.find("crm")).secrets_at(0) == [mine, rotated["secret"]]
    assert (await api.ask("DELETE", "/v1/webhooks/crm"))[0] == 204
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/test"), ("POST", "/retry"),
    ):  # fmt: skip
        assert (await api.problem(method, f"/v1/webhooks/crm{path}"))[0] == 404


async def test_all_webhooks_are_replaced_at_once(api: Api) -> None:
    await api.ok("PUT", "/v1/webhooks/old", {"url": URL})
    kept = await api.ok("PUT", "/v1/webhooks/kept", {"url": URL})
    wanted = [{"id": "kept", "url": URL + "/2"}, {"url": URL + "/3", "account": "acme"}]
    answer = await api.ok("PUT", "/v1/webhooks", {"webhooks": wanted})
    by_id = {one["id"]: one for one in answer["webhooks"]}
    assert len(by_id) == 2
    assert "secret" not in by_id["kept"]
    assert by_id["kept"]["secret_hint"] == kept["secret_hint"]
    (new,) = (one for name, one in by_id.items() if name != "kept")
    assert new["secret"].startswith("whsec_")
    # The same again changes nothing but the version, and tells no secret.
    once_more = await api.ok("PUT", "/v1/webhooks", {"webhooks": wanted})
    assert [one["id"] for one in once_more["webhooks"]] == sorted(by_id)
    assert not any("secret" in one for one in once_more["webhooks"])
    stale = {"webhooks": [], "version": answer["version"]}
    assert (await api.problem("PUT", "/v1/webhooks", stale))[:2] == (409, "conflict")
    fresh = {"webhooks": [], "version": once_more["version"]}
    assert (await api.ok("PUT", "/v1/webhooks", fresh))["webhooks"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"), ({"url": "http://example.net/"}, "url"), ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": URL, "events": ["balance.lo"]}, "events[0]"),
        ({"url": URL, "events": ["balance.low", ""]}, "events[1]"),
        ({"url": URL, "events": ["b" * 65]}, "events[0]"),
        ({"url": URL, "secret": "whsec_short"}, "secret"),
        ({"url": URL, "id": "other"}, "id"), ({"url": URL, "account": "a b"}, "account"),
        ({"url": URL, "colour": "red"}, "colour"), ({"url": URL, "enabled": "yes"}, "enabled"),
    ],
)  # fmt: skip
async def test_a_wrong_webhook_is_refused_and_changes_nothing(
    api: Api, body: dict[str, Any], field: str
) -> None:
    assert (await api.problem("PUT", "/v1/webhooks/crm", body))[::2] == (400, field)
    assert (await api.ok("GET", "/v1/webhooks")) == {"webhooks": [], "version": 0}
    if field not in ("id", "colour"):
        listed = {"webhooks": [{"url": URL}, body]}
        status, _, place = await api.problem("PUT", "/v1/webhooks", listed)
        assert (status, place) == (400, f"webhooks[1].{field}")


async def test_a_test_message_says_what_came_of_it(api: Api) -> None:
    await api.ok("PUT", "/v1/webhooks/crm", {"url": "https://localhost:9/hook"})
    result = await api.ok("POST", "/v1/webhooks/crm/test")
    assert (result["webhook"], result["delivered"]) == ("crm", False)
    assert "not a public address" in result["error"]


async def test_of_racing_changes_none_is_lost(api: Api) -> None:
    settings = api.site.engine.context.settings.webhooks
    directories = [WebhookDirectory(api.site.client, settings) for _ in range(4)]
    await asyncio.gather(
        *(
            directories[number % 4].put(f"w{number}", WebhookBody(url=f"{URL}/{number}"))
            for number in range(20)
        )
    )
    listed = await api.ok("GET", "/v1/webhooks")
    assert (len(listed["webhooks"]), listed["version"]) == (20, 20)


async def test_there_are_only_so_many(api: Api) -> None:
    many = [{"id": f"w{number}", "url": URL} for number in range(ENDPOINTS_MAX)]
    await api.ok("PUT", "/v1/webhooks", {"webhooks": many})
    assert (await api.problem("PUT", "/v1/webhooks/more", {"url": URL}))[:2] == (409, "conflict")
    many.append({"id": "more", "url": URL})
    assert (await api.problem("PUT", "/v1/webhooks", {"webhooks": many}))[0] == 400
    twice = {"webhooks": [{"id": "a", "url": URL}, {"id": "a", "url": URL}]}
    assert (await api.problem("PUT", "/v1/webhooks", twice))[::2] == (400, "webhooks[1].id")


async def test_the_log_of_changes_holds_no_secret(api: Api) -> None:
    secret = new_secret()
    await api.ok("PUT", "/v1/webhooks/crm", {"url": URL, "secret": secret})
    await api.ok("POST", "/v1/webhooks/crm/rotate")
    entries = await api.site.client.execute("XRANGE", "authz:changes", "-", "+")
    assert len(entries) == 2
    assert secret.encode() not in b"".join(part for _, fields in entries for part in fields)
