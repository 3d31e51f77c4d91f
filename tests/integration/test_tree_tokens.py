"""A token of one account tree sees and changes nothing outside it, route by route.

The walk takes every operation from the OpenAPI document, so that a new one is walked as well.
All ids outside the tree begin with `zz-`, so that no answer can hold one unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from admin_site import AdminSite, open_site
from archives import drain_all
from audit_helper import assert_clean_audit

from authz.admin.handlers import ROUTES
from authz.admin.openapi import build_document
from authz.admin.scope import Place, Tree
from authz.config.sections import AdminSettings
from authz.model import AuthorizeRequest, Grant
from authz.store import keys

SETTING = "a-token-of-the-settings"
DECK = "prefix,description,price,increment\n1,North America,0.01,6\n"
DOCUMENT = build_document(ROUTES)
#: Above the tree, beside it, below its sibling, and two of another master.
OUTSIDE: Final = ("zz-above", "zz-beside", "zz-beside-leaf", "zz-other", "zz-other-leaf")
INSIDE: Final = ("tree", "tree-leaf", "tree-leaf-1")
UNKNOWN: Final = "nobody"
#: Written down of every request; no part of what accounts have or are.
_LOGS: Final = (keys.changes(), keys.token_uses())


class Walker:
    """Asks a site with the token of one tree."""

    def __init__(self, site: AdminSite, session: aiohttp.ClientSession, token: str) -> None:
        self.site = site
        self._session = session
        self._token = token

    async def ask(
        self, method: str, path: str, json: Any = None, **options: Any
    ) -> tuple[int, str]:
        """Return status and body of a request with the tree's token, or with `token`."""
        headers = {"Authorization": f"Bearer {options.pop('token', self._token)}"}
        headers |= options.pop("headers", {})
        async with self._session.request(
            method, self.site.url + path, json=json, headers=headers, **options
        ) as answer:
            return answer.status, await answer.text()

    async def walk(self, label: str, account: str, **options: Any) -> tuple[int, str]:
        """Return status and body of an operation of the document, asked about an account."""
        method, path = label.split(" ", 1)
        operation = DOCUMENT["paths"][path][method.lower()]
        query = {}
        for parameter in operation.get("parameters", ()):
            name = parameter["name"]
            value = _word(label, parameter, account)
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", value)
            elif value is not None:
                query[name] = value
        body = operation.get("requestBody")
        if body is None:
            return await self.ask(method, path, params=query, **options)
        media_type, content = next(iter(body["content"].items()))
        if media_type == "text/csv":
            return await self.ask(method, path, params=query, data=DECK, **options)
        return await self.ask(method, path, _body(content["schema"]), params=query, **options)


def _word(label: str, parameter: dict[str, Any], account: str) -> str | None:
    name = parameter["name"]
    if name == "call_id":
        return "c1"
    if name == "id" and "/recharges/" in label:
        return f"{account}-1"
    if name in ("account", "id", "parent", "under"):
        return account
    if not parameter["required"]:
        return None
    return str(parameter["example"])


def _body(schema: dict[str, Any]) -> Any:
    name = schema["$ref"].rpartition("/")[2]
    (example,) = DOCUMENT["components"]["schemas"][name]["examples"]
    body = json.loads(json.dumps(example))
    if name == "AccountBody":
        del body["deck"], body["parent"]
    if name == "DebitRequest":
        body["scope"] = "self"
    return body


@pytest.fixture
async def walker(store_url: str, tmp_path: Path) -> AsyncIterator[Walker]:
    """A seeded site and an admin's token of `tree`, whose parent is `zz-above`."""
    async with (
        open_site(store_url, tmp_path, AdminSettings(token=SETTING)) as site,
        aiohttp.ClientSession() as session,
    ):
        walker = Walker(site, session, "")
        await seed(walker)
        walker._token = await site.token("tenant", "admin", "tree")
        yield walker
        await assert_clean_audit(site.client, site.archive)


async def seed(walker: Walker) -> None:
    """Give every account money, a call, a posting and a recharge that is asked for."""
    for deck in ("wholesale", "retail"):
        await walker.ask("PUT", f"/v1/decks/{deck}", data=DECK, token=SETTING)
    recharge = {"threshold": "50", "amount": "20"}
    for account, parent in (
        ("zz-above", None), ("tree", "zz-above"), ("tree-leaf", "tree"),
        ("tree-leaf-1", "tree-leaf"), ("zz-beside", "zz-above"), ("zz-beside-leaf", "zz-beside"),
        ("zz-other", None), ("zz-other-leaf", "zz-other"),
    ):  # fmt: skip
        path = f"/v1/accounts/{account}"
        body: dict[str, Any] = {"parent": parent, "auto_recharge": recharge, "metadata": {"x": "y"}}
        if parent is None:
            body["deck"] = "wholesale"
        assert (await walker.ask("PUT", path, body, token=SETTING))[0] == 201
        body = {"amount": "30", "kind": "payment", "reference": "first"}
        assert (await walker.ask("POST", f"{path}/credits", body, token=SETTING))[0] == 200
        body = {"amount": "1", "kind": "sms", "reference": "sms", "scope": "self"}
        assert (await walker.ask("POST", f"{path}/debits", body, token=SETTING))[0] == 200
    await walker.site.decks.refresh()
    for account in (*OUTSIDE, *INSIDE):
        request = AuthorizeRequest(call_id="c1", account=account, to="+14155550100", switch="fs1")
        assert isinstance(await walker.site.engine.authorize(request), Grant)


async def snapshot(site: AdminSite) -> dict[bytes, bytes]:
    """Return everything that the store holds, but for the logs."""
    found, cursor = {}, b"0"
    while True:
        cursor, names = await site.client.execute("SCAN", cursor, "COUNT", 1_000)
        for name in names:
            if name not in _LOGS:
                found[name] = await site.client.execute("DUMP", name)
        if cursor == b"0":
            return found


async def archived(site: AdminSite) -> None:
    """Let the archive have everything, so that reading changes nothing in the store."""
    for account in ("zz-above", "zz-other"):
        await site.archive.catch_up(account)


LABELS = [f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item]


async def test_outside_is_as_if_it_did_not_exist(walker: Walker) -> None:
    await archived(walker.site)
    before = await snapshot(walker.site)
    for label in LABELS:
        missing = await walker.walk(label, UNKNOWN)
        for account in OUTSIDE:
            status, body = await walker.walk(label, account)
            assert (status, body.replace(account, UNKNOWN)) == missing, label
            assert "zz-" not in body.replace(account, ""), label
        if missing[0] not in (400, 403, 404):
            # It names no account at all.
            assert label == "GET /v1/whoami"
    assert await snapshot(walker.site) == before


async def test_the_tree_is_seen_and_nothing_else_with_it(walker: Walker) -> None:
    await archived(walker.site)
    before = await snapshot(walker.site)
    for label in LABELS:
        status, body = await walker.walk(label, "tree")
        assert "zz-" not in body, label
        if not label.startswith("GET "):
            # The top is read, never changed.
            assert status == 403, (label, body)
            continue
        for account in INSIDE:
            for accept in ("application/json", "text/csv"):
                status, body = await walker.walk(label, account, headers={"Accept": accept})
                assert status in (200, 403), (label, body)
                assert "zz-" not in body, label
    assert await snapshot(walker.site) == before


async def test_what_is_below_changes_alone(walker: Walker) -> None:
    allowed = 0
    for label in LABELS:
        if label.startswith("GET "):
            continue
        before = await snapshot(walker.site)
        status, body = await walker.walk(label, "tree-leaf-1")
        assert "zz-" not in body, label
        assert status < 500, (label, body)
        allowed += status < 300
        after = await snapshot(walker.site)
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        assert not [name for name in changed if b"zz-" in name], label
    assert allowed >= 4


@pytest.mark.parametrize("path", ["/v1/accounts", "/v1/calls", "/v1/recharges", "/v1/events"])
async def test_lists_hold_the_tree_alone(path: str, walker: Walker) -> None:
    status, body = await walker.ask("GET", path)
    assert status == 200
    assert "zz-" not in body
    if path == "/v1/accounts":
        assert [one["id"] for one in json.loads(body)["accounts"]] == list(INSIDE)
        assert json.loads(body)["accounts"][0]["parent"] is None
    if path == "/v1/calls":
        assert sorted(one["account"] for one in json.loads(body)["calls"]) == sorted(INSIDE)


@pytest.mark.parametrize("kind", ["events", "recharges"])
async def test_what_happened_is_listed_for_the_whole_tree(walker: Walker, kind: str) -> None:
    await drain_all(walker.site.archive)
    for limit in (1, 3, 100):
        found: list[dict[str, Any]] = []
        path = f"/v1/{kind}?limit={limit}"
        while True:
            status, body = await walker.ask("GET", path)
            assert status == 200
            assert "zz-" not in body
            page = json.loads(body)
            found += page[kind]
            if page["cursor"] is None:
                break
            path = f"/v1/{kind}?limit={limit}&cursor={page['cursor']}"
        assert len({one["id"] for one in found}) == len(found)
        assert {one["account"] for one in found} == set(INSIDE)
    _, body = await walker.ask("GET", f"/v1/{kind}?under=tree-leaf")
    assert {one["account"] for one in json.loads(body)[kind]} == {"tree-leaf", "tree-leaf-1"}
    _, body = await walker.ask("GET", f"/v1/{kind}?account=tree-leaf")
    assert {one["account"] for one in json.loads(body)[kind]} == {"tree-leaf"}


async def test_pages_of_the_tree_go_on_where_they_ended(walker: Walker) -> None:
    found: list[str] = []
    path = "/v1/accounts?limit=1"
    while True:
        page = json.loads((await walker.ask("GET", path))[1])
        found += [one["id"] for one in page["accounts"]]
        if page["cursor"] is None:
            break
        path = f"/v1/accounts?limit=1&cursor={page['cursor']}"
    assert found == list(INSIDE)
    for cursor in ("zz-above", "zz-above/zz-beside", "tree/zz-beside", "tree/zz-beside/x", "x"):
        status, body = await walker.ask("GET", f"/v1/accounts?cursor={cursor}")
        assert (status, json.loads(body)["field"]) == (400, "cursor")


async def test_an_account_is_made_below_the_tree_only(walker: Walker) -> None:
    tries = (
        ({}, 403),
        ({"parent": "zz-above"}, 400),
        ({"parent": UNKNOWN}, 400),
        ({"parent": "tree", "deck": "retail"}, 403),
        ({"parent": "tree", "enforce": False}, 403),
        ({"parent": "tree", "deck": "wholesale"}, 403),
        ({"parent": "tree"}, 201),
        ({"parent": "tree"}, 200),
    )
    for body, expected in tries:
        status, text = await walker.ask("PUT", "/v1/accounts/tree-new", body)
        assert status == expected, text
    for taken in ("zz-other", "zz-beside"):
        status, text = await walker.ask("PUT", f"/v1/accounts/{taken}", {"parent": "tree"})
        assert status == 409
        assert "parent" not in text
    # An id that nobody has used since its account was closed is taken in the same way.
    await walker.ask("PUT", "/v1/accounts/zz-closed", {}, token=SETTING)
    await walker.ask("DELETE", "/v1/accounts/zz-closed", token=SETTING)
    closed = await walker.ask("PUT", "/v1/accounts/zz-closed", {"parent": "tree"})
    assert closed == (status, text.replace("zz-beside", "zz-closed"))


async def test_what_decides_about_the_operators_money_is_not_the_tenants(walker: Walker) -> None:
    path = "/v1/accounts/tree-leaf"
    for changes in ({"enforce": False}, {"deck": "wholesale"}, {"deck": 7}, {"deck": ["x"]}):
        status, _ = await walker.ask("PATCH", path, changes)
        assert status == 403, changes
    await walker.ask("PATCH", "/v1/accounts/tree", {"deck": "retail"}, token=SETTING)
    await walker.ask("PATCH", path, {"enforce": False}, token=SETTING)
    # The deck of an account above is as good as none; what the operator has set may stay.
    for changes in ({"deck": "retail"}, {"deck": None}, {"enforce": False}, {"max_calls": 2}):
        assert (await walker.ask("PATCH", path, changes))[0] == 200


async def test_money_does_not_leave_the_tree(walker: Walker) -> None:
    debit = {"amount": "1", "kind": "sms", "reference": "d1"}
    status, body = await walker.ask("POST", "/v1/accounts/tree-leaf/debits", debit)
    assert (status, json.loads(body)["field"]) == (403, "scope")
    status, body = await walker.ask(
        "POST", "/v1/accounts/tree-leaf/debits", {**debit, "scope": "self"}
    )
    assert status == 200
    refund = {"kind": "refund", "call_id": "c1", "reference": "r1"}
    status, body = await walker.ask("POST", "/v1/accounts/tree-leaf/credits", refund)
    assert (status, json.loads(body)["field"]) == (403, "call_id")


async def test_a_debit_of_a_masters_token_reaches_the_master(walker: Walker) -> None:
    token = await walker.site.token("master", "operate", "zz-other")
    debit = {"amount": "1", "kind": "sms", "reference": "d1"}
    status, body = await walker.ask("POST", "/v1/accounts/zz-other-leaf/debits", debit, token=token)
    assert status == 200
    assert [leg["account"] for leg in json.loads(body)["legs"]] == ["zz-other-leaf", "zz-other"]


async def test_a_price_is_told_of_the_tenants_accounts_only(walker: Walker) -> None:
    number = "to=%2B14155550100"
    status, body = await walker.ask("GET", f"/v1/price?{number}")
    assert status == 200
    assert [leg["account"] for leg in json.loads(body)["legs"]] == ["tree"]
    status, _ = await walker.ask("GET", f"/v1/price?{number}&deck=retail")
    assert status == 403


async def test_a_token_of_a_closed_account_opens_nothing(walker: Walker) -> None:
    await walker.ask("PUT", "/v1/accounts/brief", {}, token=SETTING)
    token = await walker.site.token("brief", "read", "brief")
    assert (await walker.ask("GET", "/v1/accounts/brief", token=token))[0] == 200
    await walker.ask("DELETE", "/v1/accounts/brief", token=SETTING)
    status, body = await walker.ask("GET", "/v1/accounts", token=token)
    assert (status, json.loads(body)["reason"]) == (403, "account_closed")


async def test_a_closed_account_of_the_tree_keeps_its_history(walker: Walker) -> None:
    brief, path = {"parent": "tree"}, "/v1/accounts/tree-brief"
    assert (await walker.ask("PUT", path, brief))[0] == 201
    assert (await walker.ask("DELETE", path))[0] == 204
    assert (await walker.ask("GET", f"{path}/transactions"))[0] == 200
    assert (await walker.ask("GET", path))[0] == 404
    status, body = await walker.ask("PUT", path, brief)
    assert (status, json.loads(body)["reason"]) == (409, "conflict")
    assert json.loads((await walker.ask("GET", "/v1/accounts"))[1])["cursor"] is None


async def test_the_number_of_questions_tells_nothing(walker: Walker) -> None:
    site = walker.site
    tree = await Tree.of(site.services, "tree")

    async def commands(account: str) -> dict[str, int]:
        """Count what the store is asked; what the site asks for itself meanwhile only adds."""
        found = [await commands_once(account) for _ in range(5)]
        least = {name: min(one.get(name, 0) for one in found) for name in found[0]}
        return {name: calls for name, calls in least.items() if calls}

    async def commands_once(account: str) -> dict[str, int]:
        await site.client.execute("CONFIG", "RESETSTAT")
        assert await tree.place(account) is Place.OUTSIDE
        text = (await site.client.execute("INFO", "commandstats")).decode()
        counts = {}
        for line in text.splitlines():
            if line.startswith(("cmdstat_get", "cmdstat_hget")):
                name, _, facts = line.partition(":")
                counts[name] = int(facts.split(",")[0].removeprefix("calls="))
        return counts

    expected = await commands(UNKNOWN)
    assert expected
    for account in OUTSIDE:
        assert await commands(account) == expected
    assert await tree.place("tree") is Place.TOP
    assert await tree.place("tree-leaf-1") is Place.BELOW
