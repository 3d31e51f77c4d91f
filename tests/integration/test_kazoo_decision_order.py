"""A Kazoo platform walks every branch of the decision order, on RabbitMQ and `authz serve`.

What the platform sees is the broker, the CLI and the admin API. The rows are in `kazoo.cases`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from kazoo.cases import (
    ASKED_AGAIN,
    CASES,
    FORMS,
    FRANCE,
    FREED,
    RATED,
    RATES,
    STEPS,
    TOLLFREE,
    TOPPED_UP,
    UK,
    Call,
    Case,
)
from kazoo.ecallmgr import EXAMPLES
from kazoo.site import KazooSite, kazoo_site
from rabbitmq import RabbitServer

HEADERS = {
    "Event-Category", "Event-Name", "Msg-ID", "App-Name", "App-Version", "Node", "Server-ID",
}  # fmt: skip
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(
    rabbit_node: RabbitServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[KazooSite]:
    """One daemon for the whole walk, with the accounts of all rows."""
    await rabbit_node.reset()
    directory = tmp_path_factory.mktemp("walk")
    rows = (*CASES, *STEPS)
    async with kazoo_site(rabbit_node, directory) as site:
        await site.import_rates(directory, RATES)
        await site.import_documents(directory, [one for case in rows for one in case.documents])
        await asyncio.gather(*(prepare(site, case) for case in rows if case.is_known))
        yield site


async def prepare(site: KazooSite, case: Case) -> None:
    """Give a row's accounts their decks and credit."""
    await site.equip(case.account_id, "retail", case.credit)
    if not case.is_own_reseller:
        await site.equip(case.reseller_id, "wholesale", case.reseller_credit)


def variables(case: Case, call: Call) -> dict[str, str]:
    """Return a carrier leg's Custom-Channel-Vars; "" takes one away."""
    found = {
        "Account-ID": case.account_id,
        "Reseller-ID": case.reseller_id,
        "Resource-ID": "d1d2d3d4d5d6d7d8d9d0d1d2d3d4d5d6",
        "E164-Destination": call.to,
        **call.variables,
    }
    return {name: value for name, value in found.items() if value}


def question_of(site: KazooSite, case: Case, number: int, call: Call) -> dict[str, Any]:
    """Return what ecallmgr asks about a channel."""
    return site.ecallmgr.question(
        "authz/authz_req",
        Call_ID=case.call_id(number),
        Call_Direction=call.direction,
        Request=f"{call.to}@203.0.113.20",
        Custom_Channel_Vars=variables(case, call),
    )


async def ask(site: KazooSite, case: Case, number: int, call: Call | None = None) -> dict[str, Any]:
    """Ask about a row's call, or another one with its id; look at all but the decision."""
    question = question_of(site, case, number, call or case.calls[number])
    waiting = site.ecallmgr.expect(question["Msg-ID"])
    await site.ecallmgr.publish("callmgr", "authz.authorize", question)
    answer = await asyncio.wait_for(waiting, 20)
    assert await asyncio.wait_for(site.ecallmgr.broadcasts.get(), 20) == answer
    check_form(question, answer)
    return answer


def check_form(question: dict[str, Any], answer: dict[str, Any]) -> None:
    """Compare with what Kazoo's validators demand, and no field beyond."""
    text = {name: answer[name] for name in answer if isinstance(answer[name], str)}
    assert text.keys() == HEADERS | {
        "Call-ID", "Other-Leg-Call-ID", "Call-Direction", "Account-ID", "Account-Billing",
        "Reseller-ID", "Reseller-Billing",
    }  # fmt: skip
    assert all(text.values())
    assert answer.keys() - text.keys() == {"Is-Authorized", "Soft-Limit", "Custom-Channel-Vars"}
    assert {type(answer["Is-Authorized"]), type(answer["Soft-Limit"])} == {bool}
    usages = answer["Custom-Channel-Vars"]
    assert usages.keys() <= {"To", "Account-Trunk-Usage", "Reseller-Trunk-Usage"}
    assert all(isinstance(value, str) for value in usages.values())
    kind = (answer["Event-Category"], answer["Event-Name"], answer["Node"])
    assert kind == ("authz", "authz_resp", "authz@walk")
    for name in ("Msg-ID", "Call-ID", "Other-Leg-Call-ID", "Call-Direction"):
        assert answer[name] == question[name]
    assert answer["Account-ID"] == question["Custom-Channel-Vars"]["Account-ID"]


def check_decision(case: Case, call: Call, answer: dict[str, Any]) -> None:
    """Compare an answer's decision with its row."""
    found = answer["Is-Authorized"], answer["Account-Billing"], answer["Reseller-Billing"]
    assert (*found, answer["Soft-Limit"]) == (*call.answer, call.soft)
    if case.is_known and not call.variables:
        assert answer["Reseller-ID"] == case.reseller_id
    usage = answer["Custom-Channel-Vars"]
    for name, expected in zip(("Account", "Reseller"), call.usage, strict=True):
        assert not expected or usage[f"{name}-Trunk-Usage"] == expected
    assert not case.is_own_reseller or "Reseller-Trunk-Usage" not in usage


async def end(site: KazooSite, case: Case, number: int, answer: dict[str, Any]) -> None:
    """Have a channel live and end, as its answer lets it; a refused one is killed at once."""
    call = case.calls[number]
    fields = {"Request": f"{call.to}@203.0.113.20", "variables": variables(case, call)}
    await site.tell("CHANNEL_CREATE", answer, **fields)
    if call.passes:
        await site.tell("CHANNEL_ANSWER", answer, **fields)
    await site.tell("CHANNEL_DESTROY", answer, Billing_Seconds=call.seconds, **fields)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_every_branch(site: KazooSite, case: Case) -> None:
    answers = [await ask(site, case, number) for number in range(len(case.calls))]
    for call, answer in zip(case.calls, answers, strict=True):
        check_decision(case, call, answer)
    for number, answer in enumerate(answers):
        await end(site, case, number, answer)
    if not case.is_known:
        return
    for leg, account in enumerate((case.account_id, case.reseller_id)):
        if leg == 0 or not case.is_own_reseller:
            await site.until_charged(account, case.charges(leg))
    await site.until_no_calls(case.reseller_id)


async def test_a_question_asked_again_is_one_call_and_one_bill(site: KazooSite) -> None:
    case = ASKED_AGAIN
    answers = [await ask(site, case, 0) for _ in range(3)]
    decisions = [{**one, "Msg-ID": ""} for one in answers]
    assert decisions[0] == decisions[1] == decisions[2]
    # The id of a live call says nothing of a call to somebody else.
    other = await ask(site, case, 0, case.calls[1])
    assert (other["Is-Authorized"], other["Soft-Limit"]) == (False, False)
    for _ in range(2):
        await end(site, case, 0, answers[0])
    await site.until_charged(case.account_id, {case.call_id(0): [40_000]})
    # Too late: the channel is gone, and its place is free for the next.
    late = await ask(site, case, 0)
    assert late["Is-Authorized"] is False
    await site.until_no_calls(case.reseller_id)
    answer = await ask(site, case, 1)
    check_decision(case, case.calls[1], answer)
    await end(site, case, 1, answer)
    for leg, account in enumerate((case.account_id, case.reseller_id)):
        await site.until_charged(account, case.charges(leg))


async def test_a_freed_trunk_serves_either_direction_at_once(site: KazooSite) -> None:
    case = FREED
    for number in (0, 2, 3):
        answer = await ask(site, case, number)
        check_decision(case, case.calls[number], answer)
        check_decision(case, case.calls[1], await ask(site, case, 1))
        await end(site, case, number, answer)
        await site.until_no_calls(case.reseller_id)
    for leg, account in enumerate((case.account_id, case.reseller_id)):
        await site.until_charged(account, case.charges(leg))


async def test_messages_may_be_compressed_and_asked_for_by_a_process(site: KazooSite) -> None:
    case, ecallmgr = FORMS, site.ecallmgr
    question = question_of(site, case, 0, case.calls[0])
    question["Server-ID"] = f"pid://<0.7.1>/{ecallmgr.server_id}"
    waiting = ecallmgr.expect(question["Msg-ID"])
    packed = {"content_encoding": "gzip", "headers": {"x-unknown": 1}}
    await ecallmgr.publish(
        "callmgr", "authz.authorize", gzip.compress(json.dumps(question).encode()), **packed
    )
    answer = await asyncio.wait_for(waiting, 20)
    assert ecallmgr.headers["Deliver-To-PID"] == "<0.7.1>"
    check_form(question, answer)
    check_decision(case, case.calls[0], answer)
    assert await asyncio.wait_for(ecallmgr.broadcasts.get(), 20) == answer
    await end(site, case, 0, answer)
    await site.until_charged(case.reseller_id, case.charges(1))


async def test_rates_are_told_in_units_and_balances_as_booleans(site: KazooSite) -> None:
    account, reseller = RATED.account_id, RATED.reseller_id
    asked = {"Account_ID": account, "Call_ID": "r1@192.0.2.7", "Direction": "outbound"}
    rate = await site.ecallmgr.ask("rate/req", To_DID=UK, **asked)
    assert await asyncio.wait_for(site.ecallmgr.broadcasts.get(), 20) == rate
    body = {name: value for name, value in rate.items() if name not in HEADERS}
    assert (rate["Event-Category"], rate["Event-Name"]) == ("rate", "resp")
    # The first 30 s cost 300 units, which the original leaves out of Base-Cost, and the surcharge.
    assert body == {
        "Call-ID": "r1@192.0.2.7", "Rate": "600", "Rate-Increment": 6, "Rate-Minimum": "30",
        "Rate-NoCharge-Time": 0, "Surcharge": "100", "Base-Cost": "400", "Pvt-Cost": "300",
        "Prefix": "44", "Rate-ID": "retail-44", "Rate-Name": "United Kingdom",
        "Rate-Description": "United Kingdom", "Ratedeck-ID": "retail", "Update-Callee-ID": False,
    }  # fmt: skip
    none = await site.ecallmgr.ask("rate/req", To_DID=FRANCE, **asked)
    assert none.keys() <= HEADERS
    inbound = await site.ecallmgr.ask(
        "rate/req", To_DID=TOLLFREE, **{**asked, "Direction": "inbound"}
    )
    assert (inbound["Rate"], inbound["Prefix"]) == ("300", "1800")
    assert await asyncio.wait_for(site.ecallmgr.broadcasts.get(), 20) == inbound

    accounts = [account, reseller, "0" * 32]
    balances = await site.ecallmgr.ask("authz/balance_check_req", Accounts=accounts)
    assert (balances["Event-Category"], balances["Event-Name"]) == ("authz", "balance_check_resp")
    assert balances["Balances"] == {account: False, reseller: True, "0" * 32: True}
    assert site.ecallmgr.broadcasts.empty()


async def test_low_balances_and_recharges_are_told_to_kazoos_notifications(site: KazooSite) -> None:
    case, told = TOPPED_UP, await site.ecallmgr.serve_notifications()
    answer = await ask(site, case, 0)
    check_decision(case, case.calls[0], answer)
    await end(site, case, 0, answer)
    for leg, account in enumerate((case.account_id, case.reseller_id)):
        await site.until_charged(account, case.charges(leg))
    low = await asyncio.wait_for(told.get(), 60)
    check_notification(low, "low_balance")
    assert (low["Account-ID"], low["Current-Balance"]) == (case.account_id, 30_000)

    page = await site.admin("GET", f"recharges?account={case.account_id}")
    (recharge,) = [one["id"] for one in page["recharges"]]
    await site.admin("POST", f"recharges/{recharge}/failed", json={"detail": "card expired"})
    failed = await asyncio.wait_for(told.get(), 60)
    check_notification(failed, "topup")
    assert (failed["Success"], failed["Response"]) == (False, "card expired")
    # A card that is charged after all is credited, once.
    for _ in range(2):
        await site.admin("POST", f"recharges/{recharge}/succeeded")
    done = await asyncio.wait_for(told.get(), 60)
    check_notification(done, "topup")
    assert (done["Account-ID"], done["Amount"]) == (case.account_id, 25.5)
    assert (done["Success"], done["Response"]) == (True, "approved")
    assert await site.balance_micros(case.account_id) == 28_500_000
    assert told.empty()


def check_notification(message: dict[str, Any], name: str) -> None:
    """Compare a notification's form with Kazoo's example of one."""
    example = EXAMPLES[f"notifications/{name}"]
    assert message.keys() == example.keys() | {"Server-ID"}
    for field, value in example.items():
        kinds = (int, float) if field == "Amount" else type(value)
        assert isinstance(message[field], kinds), field
    assert (message["Event-Category"], message["Event-Name"]) == ("notification", name)
