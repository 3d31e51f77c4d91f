"""Schemathesis asks every operation of the served document what the document promises.

As a token of every right and as one that is bound to an account tree, with right and with wrong
data. Left out of its checks are two: that wrong credentials are refused (they are limited by
address, see test_access.py and below), and that whatever fits the schema is taken (a time, a
cursor or two fields together can be wrong in ways that no schema says).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import schemathesis
from admin_site import SiteThread, site_thread
from audit_helper import assert_clean_audit
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
)
from servers import DEFAULT_KIND, ServerPool

from authz.admin.handlers import ROUTES
from authz.admin.openapi import build_document
from authz.config.sections import AdminSettings
from authz.model import AuthorizeRequest, Grant
from authz.store import keys

SETTING = "a-token-of-the-settings"
EXAMPLES = 12
DECK = b"prefix,description,price,increment\n1,North America,0.01,6\n"
#: Ids that the seeded store knows; `tree` is the top of the bound token's tree.
KNOWN = ("tree", "tree-leaf", "above", "beside", "retail")
DOCUMENT = build_document(ROUTES)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {one.ok().label: one.ok() for one in SCHEMA.get_all_operations()}


@pytest.fixture(scope="module")
def site(server_pool: ServerPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteThread]:
    """A site with some accounts, money and calls."""
    directory = tmp_path_factory.mktemp("site")
    url = server_pool.get(DEFAULT_KIND).url
    with site_thread(url, directory, AdminSettings(token=SETTING)) as thread:
        seed(thread)
        yield thread
        archive = thread.site.archive
        thread.run(assert_clean_audit(thread.site.client, archive))


def seed(thread: SiteThread) -> None:
    headers = {"Authorization": f"Bearer {SETTING}"}
    base = f"{thread.site.url}/v1"
    requests.put(f"{base}/decks/retail", data=DECK, headers=headers).raise_for_status()
    for account, parent in (
        ("above", None), ("tree", "above"), ("tree-leaf", "tree"), ("beside", "above"),
    ):  # fmt: skip
        path = f"{base}/accounts/{account}"
        body: dict[str, Any] = {"parent": parent, "deck": "retail" if parent is None else None}
        requests.put(path, json=body, headers=headers).raise_for_status()
        body = {"amount": "10", "kind": "payment", "reference": "first"}
        requests.post(f"{path}/credits", json=body, headers=headers).raise_for_status()
    thread.run(thread.site.decks.refresh())
    for account in ("tree-leaf", "beside"):
        request = AuthorizeRequest(call_id="c1", account=account, to="+14155550100")
        assert isinstance(thread.run(thread.site.engine.authorize(request)), Grant)


@pytest.fixture(scope="module", params=["all", "tree"])
def token(request: pytest.FixtureRequest, site: SiteThread) -> str:
    """A token that may do anything, to all accounts or to those of one tree."""
    if request.param == "all":
        return SETTING
    return site.run(site.site.token("fuzz", "admin", "tree"))


def test_the_served_document_is_the_one_of_the_table(site: SiteThread) -> None:
    answer = requests.get(f"{site.site.url}/openapi.json")
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json() == json.loads(json.dumps(DOCUMENT))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda one: one.value)
@pytest.mark.parametrize("label", list(OPERATIONS))
def test_an_operation_keeps_its_promises(
    label: str, mode: GenerationMode, token: str, site: SiteThread
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    # Pages and files end, calls are not hung up and messages not sent: no other host is asked.
    known = st.sampled_from([*KNOWN, None]) if label != "POST /v1/webhooks/{id}/test" else st.none()

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode), name=known)
    def ask(case: Any, name: str | None) -> None:
        words = case.path_parameters
        if name is not None and mode is GenerationMode.POSITIVE and words and "id" in words:
            words["id"] = name
        answer = case.call(base_url=site.site.url, headers=headers)
        case.validate_response(
            answer,
            headers=headers,
            excluded_checks=[
                ignored_auth,
                positive_data_acceptance,
                *([] if _is_sent(case, answer) else [negative_data_rejection]),
            ],
            transport_kwargs={"base_url": site.site.url},
        )
        if answer.status_code >= 400:
            problem = answer.json()
            assert problem["status"] == answer.status_code
            assert problem["reason"]

    try:
        ask()
    finally:
        # What receivers were made up must not be sent anything by a later operation.
        site.run(_forget_webhooks(site))


def _is_sent(case: Any, answer: Any) -> bool:
    """Return whether every parameter made up was on the wire; `requests` leaves empty lists out."""
    query = parse_qs(urlsplit(answer.request.url).query, keep_blank_values=True)
    return {str(name) for name in case.query or ()} <= query.keys()


async def _forget_webhooks(thread: SiteThread) -> None:
    await thread.site.client.execute("DEL", keys.webhooks())


@pytest.mark.parametrize("label", list(OPERATIONS))
def test_nobody_gets_anything_without_a_right_token(label: str, site: SiteThread) -> None:
    method, path = label.split(" ", 1)
    url = site.site.url + path.replace("{", "").replace("}", "")
    with requests.Session() as session:
        for number, headers in enumerate(
            ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {SETTING}"})
        ):
            # Each operation from an address of its own: wrong tokens are limited by address.
            address = f"127.0.1.{list(OPERATIONS).index(label) + 1}"
            session.mount("http://", _from(address))
            answer = session.request(method, url, headers=headers, json={})
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.json()["reason"] == ("token_wrong" if number else "token_missing")


def _from(address: str) -> requests.adapters.HTTPAdapter:
    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options, source_address=(address, 0))

    return Adapter()
