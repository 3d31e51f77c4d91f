"""Who may use the admin API, and what is written down of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from admin_site import AdminSite, open_site
from audit_helper import assert_clean_audit

from authz.admin import attempts
from authz.admin.tokens import TokenRequest
from authz.config.sections import AdminSettings
from authz.errors import Conflict, InvalidInput
from authz.store import keys
from authz.store.tokens import TOKENS_MAX

SETTING = "a-token-of-the-settings"
DECK = "prefix,description,price,increment\n1,North America,0.01,6\n"


class Asker:
    """Asks one site over HTTP, each time with a token that is named."""

    def __init__(self, site: AdminSite, session: aiohttp.ClientSession) -> None:
        self.site = site
        self.session = session

    async def ask(
        self, token: str | None, method: str, path: str, json: Any = None, **options: Any
    ) -> tuple[int, Any]:
        """Return status and document."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        headers |= options.pop("headers", {})
        async with self.session.request(
            method, self.site.url + path, json=json, headers=headers, **options
        ) as answer:
            if answer.content_type.endswith("json"):
                return answer.status, await answer.json(content_type=None)
            return answer.status, await answer.text()

    async def outcome(
        self, token: str | None, method: str, path: str, json: Any = None, **options: Any
    ) -> tuple[int, str | None]:
        """Return status and reason, None of a success."""
        status, document = await self.ask(token, method, path, json, **options)
        return status, document["reason"] if status >= 400 else None

    async def seed(self, token: str | None = SETTING) -> None:
        """Create `acme` with two accounts below it and one below these, and `other` beside."""
        await self.ask(token, "PUT", "/v1/decks/retail", data=DECK)
        for account, parent in (
            ("acme", None),
            ("acme-sales", "acme"),
            ("acme-sales-1", "acme-sales"),
            ("acme-support", "acme"),
            ("other", None),
            ("other-sales", "other"),
        ):
            body = {"parent": parent, "deck": "retail" if parent is None else None}
            status, _ = await self.ask(token, "PUT", f"/v1/accounts/{account}", body)
            assert status == 201


@contextlib.asynccontextmanager
async def asking(url: str, directory: Path, admin: AdminSettings) -> AsyncIterator[Asker]:
    async with open_site(url, directory, admin) as site, aiohttp.ClientSession() as session:
        yield Asker(site, session)
        await assert_clean_audit(site.client, site.archive)


@pytest.fixture
async def asker(store_url: str, tmp_path: Path) -> AsyncIterator[Asker]:
    """A site with a token in the settings."""
    async with asking(store_url, tmp_path, AdminSettings(token=SETTING)) as one:
        yield one


@pytest.fixture
async def open_asker(store_url: str, tmp_path: Path) -> AsyncIterator[Asker]:
    """A site without any token."""
    async with asking(store_url, tmp_path, AdminSettings()) as one:
        yield one


async def changes_of(asker: Asker) -> list[dict[str, Any]]:
    """Return the log of changes, the oldest first."""
    status, page = await asker.ask(SETTING, "GET", "/v1/changes")
    assert status == 200, page
    return list(reversed(page["changes"]))


# --- Tokens ----------------------------------------------------------------------------------


async def test_a_token_is_told_once_and_works_until_it_is_revoked(asker: Asker) -> None:
    status, made = await asker.ask(
        SETTING, "POST", "/v1/tokens", {"name": "billing", "role": "operate"}
    )
    assert status == 201
    token = made.pop("token")
    assert token.startswith(f"authz_{made['id']}_")
    assert len(token.split("_", 2)[2]) == 43
    assert made["last_used_on"] is None
    _, listed = await asker.ask(SETTING, "GET", "/v1/tokens")
    assert listed["tokens"] == [made]
    _, caller = await asker.ask(token, "GET", "/v1/whoami")
    assert (caller["name"], caller["role"], caller["token"]) == ("billing", "operate", made["id"])
    _, listed = await asker.ask(SETTING, "GET", "/v1/tokens")
    assert listed["tokens"][0]["last_used_on"] is not None
    assert await asker.outcome(SETTING, "DELETE", f"/v1/tokens/{made['id']}") == (204, None)
    assert await asker.outcome(token, "GET", "/v1/whoami") == (401, "token_wrong")
    assert (await asker.outcome(SETTING, "DELETE", f"/v1/tokens/{made['id']}"))[0] == 404


async def test_the_store_keeps_no_secret(asker: Asker) -> None:
    token = await asker.site.token("billing", "read")
    secret = token.split("_", 2)[2].encode()
    for key in (keys.tokens(), keys.token_uses()):
        for value in await asker.site.client.execute("HGETALL", key):
            assert secret not in value


async def test_a_token_is_known_to_every_process(
    asker: Asker, store_url: str, tmp_path: Path
) -> None:
    token = await asker.site.token("billing", "read")
    async with asking(store_url, tmp_path, AdminSettings()) as second:
        assert await second.outcome(token, "GET", "/v1/accounts") == (200, None)
        await asker.site.services.tokens.revoke(token.split("_")[1])
        assert await second.outcome(token, "GET", "/v1/accounts") == (401, "token_wrong")


async def test_parts_of_a_token_open_nothing(asker: Asker) -> None:
    token = await asker.site.token("billing", "admin")
    other = await asker.site.token("other", "admin")
    scheme, token_id, secret = token.split("_", 2)
    wrong = (
        token[:-1],
        token + "x",
        secret,
        f"{scheme}_{token_id}_",
        f"{scheme}_{token_id}",
        f"{scheme}_{other.split('_')[1]}_{secret}",
        f"{scheme}__{secret}",
        "authz",
        "\N{SNOWMAN}".encode().decode("latin-1"),
    )
    for text in wrong:
        assert await asker.outcome(text, "GET", "/v1/whoami") == (401, "token_wrong"), text
    basic = {"Authorization": f"Basic {token}"}
    assert await asker.outcome(None, "GET", "/v1/whoami", headers=basic) == (401, "token_wrong")


async def test_a_token_ends_when_it_says(asker: Asker) -> None:
    tokens = asker.site.services.tokens
    made = await tokens.create(
        TokenRequest(name="short", role="read", expires_at="2100-01-01T00:00:00Z")
    )
    assert made.expires_at == "2100-01-01T00:00:00Z"
    assert await asker.outcome(made.token, "GET", "/v1/whoami") == (200, None)
    # The store's clock moves on.
    asker.site.engine.context.clock.correct(4_102_444_800)
    assert await asker.outcome(made.token, "GET", "/v1/whoami") == (401, "token_expired")
    assert len((await tokens.all()).tokens) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "anonymous", "role": "read"}, "name"),
        ({"name": "cli:root", "role": "read"}, "name"),
        ({"name": "x", "role": "root"}, "role"),
        ({"name": "x", "role": "read", "account": "nobody"}, "account"),
        ({"name": "x", "role": "read", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "role": "read", "expires_at": "soon"}, "expires_at"),
        ({"name": "x"}, "role"),
        ({"name": "x", "role": "read", "scope": "acme"}, "scope"),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(
    asker: Asker, body: dict[str, Any], field: str
) -> None:
    status, document = await asker.ask(SETTING, "POST", "/v1/tokens", body)
    assert (status, document["field"]) == (400, field)
    assert (await asker.site.services.tokens.all()).tokens == ()


async def test_there_are_not_endlessly_many_tokens(asker: Asker) -> None:
    tokens = asker.site.services.tokens
    await tokens.create(TokenRequest(name="first", role="read"))
    with pytest.raises(Conflict):
        await tokens.create(TokenRequest(name="first", role="read"))
    record = await asker.site.client.execute("HVALS", keys.tokens())
    for number in range(TOKENS_MAX - 1):
        await asker.site.client.execute("HSET", keys.tokens(), f"{number:016x}", record[0])
    with pytest.raises(Conflict, match="1000 tokens"):
        await tokens.create(TokenRequest(name="last", role="read"))


async def test_a_reserved_name_is_for_nobody(asker: Asker) -> None:
    with pytest.raises(InvalidInput, match=r"admin\.token"):
        await asker.site.services.tokens.create(TokenRequest(name="admin.token", role="admin"))


# --- With and without ------------------------------------------------------------------------


async def test_once_there_is_a_token_nobody_comes_without(open_asker: Asker) -> None:
    assert await open_asker.outcome(None, "GET", "/v1/accounts") == (200, None)
    _, caller = await open_asker.ask(None, "GET", "/v1/whoami")
    assert caller == {
        "name": "anonymous", "role": "admin", "account": None, "token": None, "expires_at": None,
    }  # fmt: skip
    token = await open_asker.site.token("first", "read")
    assert await open_asker.outcome(None, "GET", "/v1/accounts") == (401, "token_missing")
    assert await open_asker.outcome(token, "GET", "/v1/accounts") == (200, None)
    await open_asker.site.services.tokens.revoke(token.split("_")[1])
    assert await open_asker.outcome(None, "GET", "/v1/accounts") == (200, None)
    # Whoever shows a token is judged by it, also where none is needed.
    assert await open_asker.outcome(token, "GET", "/v1/accounts") == (401, "token_wrong")


async def test_the_settings_token_opens_while_the_store_is_away(
    store_url: str, tmp_path: Path
) -> None:
    async with (
        open_site(store_url, tmp_path, AdminSettings(token=SETTING)) as site,
        aiohttp.ClientSession() as session,
    ):
        asker = Asker(site, session)
        token = await site.token("billing", "read")
        await site.client.close()
        assert await asker.outcome(SETTING, "GET", "/v1/whoami") == (200, None)
        assert await asker.outcome(token, "GET", "/v1/whoami") == (503, "store_unavailable")
        assert await asker.outcome(None, "GET", "/v1/whoami") == (401, "token_missing")


async def test_the_document_needs_no_token(asker: Asker) -> None:
    status, document = await asker.ask(None, "GET", "/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")


# --- Wrong tokens ----------------------------------------------------------------------------


async def test_wrong_tokens_are_limited_by_address_and_lock_nobody_else_out(asker: Asker) -> None:
    known = await asker.site.token("known", "read")
    fresh = await asker.site.token("fresh", "read")
    assert await asker.outcome(known, "GET", "/v1/whoami") == (200, None)
    for number in range(attempts.BURST):
        assert (await asker.outcome(f"wrong-{number}", "GET", "/v1/whoami"))[0] == 401
    async with asker.session.get(
        f"{asker.site.url}/v1/whoami", headers={"Authorization": "Bearer wrong"}
    ) as answer:
        assert answer.status == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= attempts.INTERVAL_SECONDS
    # No guess is judged any more, not even a right one; but who was right before still is.
    assert await asker.outcome(fresh, "GET", "/v1/whoami") == (429, "too_many_attempts")
    assert await asker.outcome(known, "GET", "/v1/whoami") == (200, None)
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=connector) as elsewhere:
        headers = {"Authorization": f"Bearer {fresh}"}
        async with elsewhere.get(f"{asker.site.url}/v1/whoami", headers=headers) as answer:
            assert answer.status == 200


# --- Roles -----------------------------------------------------------------------------------


async def test_each_role_may_do_what_it_is_for(asker: Asker) -> None:
    await asker.seed()
    read = await asker.site.token("reader", "read")
    operate = await asker.site.token("operator", "operate")
    admin = await asker.site.token("admin", "admin")
    credit = {"amount": "1", "kind": "payment", "reference": "r1"}
    tries = (
        ("GET", "/v1/accounts/acme", None, read, 200),
        ("POST", "/v1/accounts/acme/credits", credit, operate, 200),
        ("PATCH", "/v1/accounts/acme", {"max_calls": 3}, operate, 200),
        ("GET", "/v1/tokens", None, admin, 200),
        ("DELETE", "/v1/accounts/acme-support", None, admin, 204),
    )
    for method, path, body, least, expected in tries:
        for token in (read, operate, admin):
            if token == least:
                break
            outcome = await asker.outcome(token, method, path, body)
            assert outcome == (403, "role_insufficient"), path
        assert (await asker.outcome(least, method, path, body))[0] == expected


# --- The log of changes ----------------------------------------------------------------------


async def test_every_change_is_logged_done_or_refused(asker: Asker) -> None:
    await asker.seed()
    token = await asker.site.token("portal", "operate", "acme")
    before = len(await changes_of(asker))
    credit = {"amount": "5", "kind": "payment", "reference": "r1"}
    path = "/v1/accounts/acme-sales/credits"
    assert (await asker.outcome(token, "POST", path, credit))[0] == 200
    assert (await asker.outcome(token, "PATCH", "/v1/accounts/other", {"deck": None}))[0] == 404
    assert (await asker.outcome(token, "DELETE", "/v1/accounts/acme-sales"))[0] == 403
    assert (await asker.outcome("wrong", "DELETE", "/v1/accounts/acme"))[0] == 401
    assert (await asker.outcome(token, "GET", "/v1/accounts"))[0] == 200
    entries = (await changes_of(asker))[before:]
    told = [(one["who"], one["action"], one["target"], one["status"]) for one in entries]
    assert told == [
        ("portal", "POST /v1/accounts/{id}/credits", "acme-sales", 200),
        ("portal", "PATCH /v1/accounts/{id}", "other", 404),
        ("portal", "DELETE /v1/accounts/{id}", "acme-sales", 403),
        ("", "DELETE /v1/accounts/{id}", "acme", 401),
    ]
    assert entries[0]["detail"] == {
        "query": {"id": "acme-sales"}, "body": credit, "by": token.split("_")[1],
    }  # fmt: skip
    assert entries[1]["detail"]["reason"] == "not_found"
    assert {one["remote"] for one in entries} == {"127.0.0.1"}


async def test_changes_are_found_by_who_what_and_when(asker: Asker) -> None:
    await asker.seed()
    token = await asker.site.token("portal", "operate")
    for number in range(3):
        await asker.ask(token, "PATCH", "/v1/accounts/other", {"max_calls": number})

    async def found(query: str) -> list[Any]:
        status, page = await asker.ask(SETTING, "GET", f"/v1/changes?{query}")
        assert status == 200, page
        return [one["detail"]["body"] for one in page["changes"]]

    newest_first = [{"max_calls": number} for number in (2, 1, 0)]
    assert await found("who=portal") == newest_first
    assert await found("target=other&action=PATCH%20/v1/accounts/%7Bid%7D") == newest_first
    assert await found("who=nobody") == []
    assert await found("who=portal&end=2020-01-01") == []
    assert await found("who=portal&start=2020-01-01") == newest_first
    _, page = await asker.ask(SETTING, "GET", "/v1/changes?who=portal&limit=2")
    assert len(page["changes"]) == 2
    assert await found(f"who=portal&limit=2&cursor={page['cursor']}") == newest_first[2:]
    for wrong in ("cursor=x", "cursor=WzEsMl0", "start=soon", "limit=0", "who=%00"):
        outcome = await asker.outcome(SETTING, "GET", f"/v1/changes?{wrong}")
        assert outcome == (400, "invalid_input"), wrong


async def test_no_secret_gets_into_the_log(asker: Asker) -> None:
    body = {"url": "https://user:hush@example.org/x", "secret": "whsec_" + "A" * 40}
    await asker.ask(SETTING, "PUT", "/v1/webhooks/crm", body)
    made = await asker.site.token("billing", "read")
    await asker.ask(SETTING, "PATCH", "/v1/accounts/none", {"metadata": {"api_token": "hush"}})
    text = str(await changes_of(asker))
    for secret in ("hush", "AAAA", made.split("_", 2)[2], SETTING):
        assert secret not in text


async def test_a_change_that_cannot_be_logged_is_told_in_the_process_log(
    store_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        open_site(store_url, tmp_path, AdminSettings(token=SETTING)) as site,
        aiohttp.ClientSession() as session,
    ):
        await site.client.close()
        with caplog.at_level(logging.INFO, logger="authz"):
            outcome = await Asker(site, session).outcome(
                SETTING, "PATCH", "/v1/accounts/acme", {"max_calls": 1}
            )
        assert outcome == (503, "store_unavailable")
    (entry,) = (one for one in caplog.records if one.getMessage() == "change_not_recorded")
    assert entry.fields["target"] == "acme"


async def test_many_at_once_are_all_logged(asker: Asker) -> None:
    await asker.seed()
    token = await asker.site.token("portal", "operate")
    bodies = [{"amount": "1", "kind": "payment", "reference": f"r{number}"} for number in range(40)]
    await asyncio.gather(
        *(asker.ask(token, "POST", "/v1/accounts/acme/credits", body) for body in bodies)
    )
    _, page = await asker.ask(SETTING, "GET", "/v1/changes?who=portal&limit=100")
    references = {one["detail"]["body"]["reference"] for one in page["changes"]}
    assert references == {body["reference"] for body in bodies}
