"""The admin API over real HTTP on a real store."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from audit_helper import assert_clean_audit

from authz.admin.app import create_app
from authz.admin.handlers import ROUTES
from authz.admin.services import Services
from authz.config import Settings
from authz.config.sections import AdminSettings, CallSettings
from authz.engine.engine import Engine
from authz.engine.spool import Spool
from authz.model import AuthorizeRequest, Grant, SettleRequest
from authz.numbers import default_rules
from authz.rating.registry import DeckRegistry
from authz.store.client import StoreClient
from authz.store.scripts import load_scripts

DECK = "prefix,description,price,increment\n1,North America,0.01,6\n44,United Kingdom,0.0137,1\n"
BAD_DECK = DECK + "49,Germany,none,6\n5.41144E+11,Argentina,0.05,6\n"


class Api:
    """An operator's client of one admin API, with the engine behind it for placing calls."""

    def __init__(self, session: aiohttp.ClientSession, engine: Engine, decks: DeckRegistry) -> None:
        self.url = ""
        self.session = session
        self.engine = engine
        self.decks = decks
        self.ready: str | None = None

    async def ask(
        self, method: str, path: str, json: Any = None, **options: Any
    ) -> tuple[int, Any]:
        """Return status and document of one request."""
        async with self.session.request(method, self.url + path, json=json, **options) as answer:
            if answer.content_type.endswith("json"):
                return answer.status, await answer.json(content_type=None)
            return answer.status, await answer.text()

    async def ok(self, method: str, path: str, json: Any = None, **options: Any) -> Any:
        """Return the document of a request that must succeed."""
        status, document = await self.ask(method, path, json, **options)
        assert status in (200, 201, 204), document
        return document

    async def problem(
        self, method: str, path: str, json: Any = None, **options: Any
    ) -> tuple[int, str, str | None]:
        """Return status, reason and field of a request that must fail."""
        status, document = await self.ask(method, path, json, **options)
        assert status >= 400, document
        assert document["status"] == status
        assert document["title"]
        return status, document["reason"], document.get("field")

    async def pair(self) -> None:
        """Create `acme` with 10 and `acme-sales` below it with 5, both with the test's deck."""
        await self.ok("PUT", "/v1/decks/retail", data=DECK)
        await self.ok("PUT", "/v1/accounts/acme", {"deck": "retail"})
        await self.ok("PUT", "/v1/accounts/acme-sales", {"parent": "acme"})
        for account, amount in (("acme", "10"), ("acme-sales", "5")):
            body = {"amount": amount, "kind": "payment", "reference": "first"}
            await self.ok("POST", f"/v1/accounts/{account}/credits", body)
        await self.decks.refresh()


@contextlib.asynccontextmanager
async def serve(url: str, directory: Path, admin: AdminSettings) -> AsyncIterator[Api]:
    settings = Settings(
        state_dir=directory, admin=admin, calls=CallSettings(default_deck="default")
    )
    client = await StoreClient.connect(url, scripts=load_scripts().values())
    decks = DeckRegistry(client, directory / "decks")
    await decks.start()
    spool = Spool.open(directory / "spool", settings.spool.bytes_max)
    engine = Engine(client, decks, default_rules(), settings, spool)
    session = aiohttp.ClientSession()
    api = Api(session, engine, decks)
    app = create_app(Services(engine.context), lambda: api.ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await session.close()
        await runner.cleanup()
        await engine.close()
        await decks.stop()
        await client.close()


@pytest.fixture
async def unaudited_api(store_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """For tests that end without a store."""
    async with serve(store_url, tmp_path, AdminSettings()) as one:
        yield one


@pytest.fixture
async def api(unaudited_api: Api) -> AsyncIterator[Api]:
    yield unaudited_api
    await assert_clean_audit(unaudited_api.engine.context.client)


async def call(
    api: Api, call_id: str, account: str = "acme-sales", to: str = "+14155550100"
) -> Grant:
    answer = await api.engine.authorize(
        AuthorizeRequest(call_id=call_id, account=account, to=to, switch="fs1")
    )
    assert isinstance(answer, Grant), answer
    return answer


async def test_an_account_is_created_read_changed_and_closed(api: Api) -> None:
    status, document = await api.ask("PUT", "/v1/accounts/acme", {"credit_limit": "20"})
    assert status == 201
    assert (document["id"], document["credit_limit"], document["currency"]) == ("acme", "20", "USD")
    assert await api.ok("GET", "/v1/accounts/acme") == document
    # What a GET answers is what a PUT takes.
    status, document = await api.ask("PUT", "/v1/accounts/acme", {**document, "max_calls": 3})
    assert (status, document["max_calls"]) == (200, 3)
    changes = {"max_calls": None, "trunks": {"outbound": 2}}
    document = await api.ok("PATCH", "/v1/accounts/acme", changes)
    assert (document["max_calls"], document["trunks"]["outbound"]) == (None, 2)
    assert await api.ask("DELETE", "/v1/accounts/acme") == (204, "")
    assert await api.problem("GET", "/v1/accounts/acme") == (404, "not_found", None)
    assert (await api.problem("PUT", "/v1/accounts/acme", {}))[:2] == (409, "conflict")


async def test_accounts_are_listed_page_by_page(api: Api) -> None:
    await api.ok("PUT", "/v1/accounts/acme", {})
    for number in range(5):
        await api.ok("PUT", f"/v1/accounts/acme-{number}", {"parent": "acme"})
    ids: list[str] = []
    cursor = ""
    while True:
        page = await api.ok("GET", f"/v1/accounts?parent=acme&limit=2{cursor}")
        ids += [one["id"] for one in page["accounts"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert ids == [f"acme-{number}" for number in range(5)]
    page = await api.ok("GET", "/v1/accounts?q=E-3")
    assert [one["id"] for one in page["accounts"]] == ["acme-3"]


async def test_credits_and_debits_are_booked_once(api: Api) -> None:
    await api.pair()
    body = {"amount": "1", "kind": "payment", "reference": "second\n"}
    answer = await api.problem("POST", "/v1/accounts/acme/credits", body)
    assert answer == (400, "invalid_input", "reference")
    body = {"amount": "2.5", "kind": "sms", "reference": "sms-1", "quantity": 5, "unit": "sms"}
    document = await api.ok("POST", "/v1/accounts/acme-sales/debits", body)
    assert [leg["balance"] for leg in document["legs"]] == ["2.5", "7.5"]
    again = await api.ok("POST", "/v1/accounts/acme-sales/debits", body)
    assert (again["duplicate"], again["legs"][0]["balance"]) == (True, "2.5")
    other = {**body, "amount": "2"}
    assert (await api.problem("POST", "/v1/accounts/acme-sales/debits", other))[0] == 409
    body = {"amount": "3", "kind": "sms", "reference": "sms-2", "require_available": True}
    status, document = await api.ask("POST", "/v1/accounts/acme-sales/debits", body)
    assert (status, document["reason"], document["account"]) == (
        402,
        "insufficient_credit",
        "acme-sales",
    )
    balance = await api.ok("GET", "/v1/accounts/acme-sales/balance")
    assert (balance["balance"], balance["spend_today"]) == ("2.5", "2.5")
    assert [one["balance"] for one in balance["chain"]] == ["7.5"]
    await assert_clean_audit(api.engine.context.client)


async def test_a_deck_is_imported_listed_exported_and_looked_up(api: Api) -> None:
    dry = await api.ok("PUT", "/v1/decks/retail?dry_run=true", data=DECK)
    assert (dry["published"], dry["dry_run"], dry["difference"]["counts"]) == (
        False,
        True,
        {"added": 2},
    )
    assert await api.problem("GET", "/v1/decks/retail") == (404, "not_found", None)
    done = await api.ok("PUT", "/v1/decks/retail?currency=USD&timezone=UTC", data=DECK)
    assert (done["published"], done["report"]["rows"]) == (True, 2)
    assert not (await api.ok("PUT", "/v1/decks/retail", data=DECK))["published"]
    (listed,) = (await api.ok("GET", "/v1/decks"))["decks"]
    assert (listed["id"], listed["prefixes"], listed["version"]) == ("retail", 2, done["version"])
    text = await api.ok("GET", "/v1/decks/retail")
    assert not (await api.ok("PUT", "/v1/decks/retail", data=text))["published"]
    await api.decks.refresh()
    row = await api.ok("GET", "/v1/decks/retail/lookup?number=%2B442071838750")
    assert (row["prefix"], row["rate"], row["class"]) == ("44", "0.0137", "international")
    missing = await api.problem("GET", "/v1/decks/retail/lookup?number=%2B8613800138000")
    assert missing[:2] == (404, "not_found")


async def test_a_bad_line_refuses_the_deck_and_is_reported(api: Api) -> None:
    status, document = await api.ask("PUT", "/v1/decks/retail", data=BAD_DECK)
    assert (status, document["reason"]) == (422, "deck_refused")
    assert [issue["line"] for issue in document["report"]["issues"]] == [4, 5]
    done = await api.ok("PUT", "/v1/decks/retail?skip_bad=true", data=BAD_DECK)
    assert [issue["outcome"] for issue in done["report"]["issues"]] == ["blocked", "left_out"]
    assert done["published"]
    assert (await api.problem("PUT", "/v1/decks/x", data="nothing"))[:2] == (422, "deck_refused")


async def test_a_price_is_exact_and_has_every_leg(api: Api) -> None:
    await api.pair()
    price = await api.ok("GET", "/v1/price?account=acme-sales&to=011442071838750&seconds=61")
    assert (price["cost"], price["rate"], price["prefix"]) == ("0.013928", "0.0137", "44")
    assert (price["number"], price["class"]) == ("+442071838750", "international")
    assert [leg["account"] for leg in price["legs"]] == ["acme-sales", "acme"]
    bought = await api.ok("GET", "/v1/price?deck=retail&to=%2B442071838750&amount=0.013928")
    assert (bought["seconds"], bought["cost"]) == (61, "0.013928")
    assert bought["legs"][0]["account"] is None
    at = await api.ok("GET", "/v1/price?deck=retail&to=%2B14155550100&at=2026-01-01T00:00:00Z")
    assert (at["at"], at["cost"]) == ("2026-01-01T00:00:00Z", "0.01")
    tollfree = await api.ok("GET", "/v1/price?account=acme&to=%2B18005551212")
    assert (tollfree["cost"], tollfree["class"]) == ("0", "tollfree")
    none = await api.ok("GET", "/v1/price?account=acme&to=%2B8613800138000")
    assert (none["cost"], none["prefix"]) == (None, None)


async def test_discounts_are_numbers_or_texts_and_change_nothing_when_they_are_wrong(
    api: Api,
) -> None:
    await api.pair()
    path = "/v1/accounts/acme-sales"
    changed = await api.ok("PATCH", path, {"discounts": {"international": 12.5, "national": "7"}})
    assert changed["discounts"] == {"international": "12.5", "national": "7"}
    price = await api.ok("GET", "/v1/price?account=acme-sales&to=%2B442071838750&seconds=61")
    assert [(leg["cost"], leg["discount"]) for leg in price["legs"]] == [
        ("0.012187", "12.5"), ("0.013928", None),
    ]  # fmt: skip
    bad: list[object] = [-1, 100.5, "12.345", 0.1 + 0.2, "NaN", "1e999999", "1e-999999", "", True]
    for value in [*bad, [], {}]:
        found = await api.problem("PATCH", path, {"discounts": {"national": value}})
        assert found[:2] == (400, "invalid_input"), value
        assert found[2].startswith("discounts"), value
    assert (await api.problem("PATCH", path, {"discounts": {"mars": 1}}))[2] == "discounts"
    assert (await api.ok("GET", path))["discounts"] == changed["discounts"]


async def test_a_price_uses_the_accounts_present_deck(
    api: Api, store_url: str, tmp_path: Path
) -> None:
    await api.pair()
    path = "/v1/price?account=acme-sales&to=%2B14155550100"
    assert (await api.ok("GET", path))["cost"] == "0.01"
    # Behind this process's back, as another one would change it.
    async with serve(store_url, tmp_path / "other", AdminSettings()) as other:
        await other.ok("PUT", "/v1/decks/dear", data="prefix,price\n1,2\n")
        await other.ok("PATCH", "/v1/accounts/acme-sales", {"deck": "dear"})
    await api.decks.refresh()
    assert (await api.ok("GET", path))["cost"] == "2"


async def test_open_calls_are_listed_for_an_account_and_those_below(api: Api) -> None:
    await api.pair()
    await api.ok("PUT", "/v1/accounts/other", {"credit_limit": "1", "deck": "retail"})
    for number in range(3):
        await call(api, f"c{number}")
    await call(api, "o1", account="other")
    listed = await api.ok("GET", "/v1/calls?account=acme")
    assert sorted(one["call_id"] for one in listed["calls"]) == ["c0", "c1", "c2"]
    assert (await api.ok("GET", "/v1/calls?account=acme-sales"))["calls"]
    ids: list[str] = []
    cursor = ""
    while True:
        page = await api.ok("GET", f"/v1/calls?limit=1{cursor}")
        ids += [one["call_id"] for one in page["calls"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert sorted(ids) == ["c0", "c1", "c2", "o1"]
    assert await api.problem("GET", "/v1/calls?cursor=99-0") == (400, "invalid_input", "cursor")
    assert (await api.problem("GET", "/v1/calls?account=nobody"))[:2] == (404, "not_found")


async def test_a_call_is_shown_open_and_settled(api: Api) -> None:
    await api.pair()
    await call(api, "a/b~c?")
    path = "/v1/calls/a%2Fb~c%3F?account=acme-sales"
    assert (await api.ok("GET", path))["state"] == "open"
    await api.engine.settle(SettleRequest(call_id="a/b~c?", account="acme-sales", seconds=61))
    state = await api.ok("GET", path)
    assert (state["state"], state["legs"][0]["used"]) == ("settled", "0.011")
    missing = await api.problem("GET", "/v1/calls/none?account=acme-sales")
    assert missing[:2] == (404, "call_unknown")
    await assert_clean_audit(api.engine.context.client)


async def test_a_call_of_a_restarted_switch_becomes_an_orphan(api: Api) -> None:
    await api.pair()
    await call(api, "c1")
    document = await api.ok("POST", "/v1/switches/fs1/restarted")
    assert document == {"switch": "fs1", "orphaned": 1}
    assert (await api.ok("GET", "/v1/calls?account=acme"))["calls"] == []
    await assert_clean_audit(api.engine.context.client)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", "/v1/accounts?parnt=acme", None, 400, "parnt"),
        ("GET", "/v1/accounts?q=a&q=b", None, 400, "q"),
        ("GET", "/v1/accounts?limit=0", None, 400, "limit"),
        ("GET", "/v1/accounts/acme?id=acme", None, 400, "id"),
        ("GET", "/v1/decks?x=1", None, 400, "x"),
        ("GET", "/v1/price?to=1&deck=x&seconds=null", None, 400, "seconds"),
        ("GET", "/v1/price?to=1&account=a&deck=b", None, 400, "account"),
        ("GET", "/v1/price?to=1&account=a&amount=1&seconds=1", None, 400, "amount"),
        ("GET", "/v1/price?to=1&deck=a&amount=1.1234567", None, 400, "amount"),
        ("GET", "/v1/price?account=a", None, 400, "to"),
        ("GET", "/v1/price?to=1&deck=a&at=yesterday", None, 400, "at"),
        ("GET", "/v1/decks/retail/lookup?number=1&direction=up", None, 400, "direction"),
        ("PUT", "/v1/accounts/acme", {"curency": "USD"}, 400, "curency"),
        ("PUT", "/v1/accounts/acme", {"id": "other"}, 400, "id"),
        ("PUT", "/v1/accounts/acme", {"trunks": {"outbound": -1}}, 400, "trunks.outbound"),
        ("PUT", "/v1/accounts/acme", {"credit_limit": 5}, 400, "credit_limit"),
        ("PUT", "/v1/accounts/acme", {"timezone": "Mars/Base"}, 400, "timezone"),
        ("PUT", "/v1/accounts/-acme", {}, 400, "id"),
        ("PUT", "/v1/decks/x?timezone=Mars", None, 400, "timezone"),
        ("PATCH", "/v1/accounts/acme", {"max_cals": 1}, 404, None),
        ("POST", "/v1/accounts/acme/credits", {"amount": "1"}, 400, "kind"),
    ],
)
async def test_wrong_input_is_answered_with_the_field(
    api: Api, method: str, path: str, body: Any, status: int, field: str | None
) -> None:
    answered, _, named = await api.problem(method, path, body)
    assert (answered, named) == (status, field)


async def test_bodies_are_taken_as_what_they_are(api: Api) -> None:
    put = ("PUT", "/v1/accounts/acme")
    assert (await api.problem(*put, data="{}"))[:2] == (415, "unsupported_media_type")
    json_type = {"Content-Type": "application/json"}
    for text, reason in (
        ("{", "malformed_json"),
        ("", "malformed_json"),
        (b"\xff", "malformed_json"),
        ('{"enabled":true,"enabled":false}', "invalid_input"),
        ("[]", "invalid_input"),
    ):
        answer = await api.problem(*put, data=text, headers=json_type)
        assert answer[:2] == (400, reason)
    deep = '{"metadata":' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}"
    answer = await api.problem("PATCH", "/v1/accounts/acme", data=deep, headers=json_type)
    assert answer[:2] == (400, "malformed_json")
    large = await api.problem(*put, data=io.BytesIO(b" " * 1_048_577), headers=json_type)
    assert large[:2] == (413, "body_too_large")
    form = aiohttp.FormData({"file": "x"}, quote_fields=True)
    form.add_field("deck", b"x", filename="deck.csv")
    assert (await api.problem("PUT", "/v1/decks/x", data=form))[:2] == (
        415,
        "unsupported_media_type",
    )
    with_body = await api.problem("DELETE", "/v1/accounts/acme", {"force": True})
    assert with_body[:2] == (400, "invalid_input")


async def test_a_deck_beyond_the_limit_is_refused(store_url: str, tmp_path: Path) -> None:
    async with serve(store_url, tmp_path, AdminSettings(body_bytes_max=65_536)) as api:
        data = DECK + "2,Nowhere,1,6\n" * 10_000
        assert (await api.problem("PUT", "/v1/decks/x", data=data))[:2] == (413, "body_too_large")

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 10_000):
                yield data[start : start + 10_000].encode()

        answer = await api.problem("PUT", "/v1/decks/x", data=chunks())
        assert answer[:2] == (413, "body_too_large")


async def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    assert (await api.problem("GET", "/v2/accounts"))[:2] == (404, "not_found")
    async with api.session.post(api.url + "/v1/decks") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_health_says_what_is_missing(api: Api) -> None:
    assert await api.ok("GET", "/livez") == {"status": "live"}
    assert await api.ok("GET", "/readyz") == {"status": "ready"}
    api.ready = "the store is away"
    status, document = await api.ask("GET", "/readyz")
    assert (status, document["detail"]) == (503, "the store is away")


async def test_a_token_is_needed_where_one_is_set(store_url: str, tmp_path: Path) -> None:
    async with serve(store_url, tmp_path, AdminSettings(token="s3cret")) as api:
        assert (await api.problem("GET", "/v1/accounts"))[:2] == (401, "token_missing")
        for wrong in ("Bearer s3cre", "Bearer s3crett", "Basic s3cret", "Bearer \xff"):
            headers = {"Authorization": wrong}
            assert (await api.problem("GET", "/v1/accounts", headers=headers))[0] == 401
        assert (await api.problem("GET", "/nowhere"))[0] == 401
        right = {"Authorization": "Bearer s3cret"}
        assert await api.ok("GET", "/v1/accounts", headers=right) == {
            "accounts": [],
            "cursor": None,
        }
        assert await api.ok("GET", "/livez") == {"status": "live"}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Host": "evil.example:8701"}, "host_refused"),
        ({"Origin": "http://evil.example"}, "origin_refused"),
        ({"Origin": "null"}, "origin_refused"),
    ],
)
async def test_without_a_token_no_web_page_gets_in(
    api: Api, headers: dict[str, str], reason: str
) -> None:
    answer = await api.problem("POST", "/v1/switches/fs1/restarted", headers=headers)
    assert answer[:2] == (403, reason)


async def test_a_store_that_is_away_is_said_to_be(unaudited_api: Api) -> None:
    await unaudited_api.engine.context.client.close()
    status, document = await unaudited_api.ask("GET", "/v1/accounts")
    assert (status, document["reason"]) == (503, "store_unavailable")


async def test_importing_a_large_deck_leaves_the_others_alone(api: Api) -> None:
    rows = "".join(f"{number},Somewhere,0.01,6\n" for number in range(2_000_000, 2_060_000))
    importing = asyncio.create_task(
        api.ok("PUT", "/v1/decks/large", data=io.BytesIO((DECK + rows).encode()))
    )
    answered = 0
    while not importing.done():
        await api.ok("GET", "/livez")
        answered += 1
    assert (await importing)["report"]["rows"] == 60_002
    assert answered > 1


def test_the_table_of_routes_describes_every_operation() -> None:
    named = {(route.method, route.path) for route in ROUTES}
    assert len(named) == len(ROUTES)
    for route in ROUTES:
        words = set() if route.parameters is None else set(route.parameters.__struct_fields__)
        in_path = {part[1:-1] for part in route.path.split("/") if part.startswith("{")}
        assert in_path <= words
        assert route.summary.endswith(".")
        assert route.answers
