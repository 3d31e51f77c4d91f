"""What lies above a token's tree is cut out of answers and problems, and nothing else is."""

from __future__ import annotations

from typing import cast

from authz.admin.messages import AccountView, CallList
from authz.admin.scope import Tree
from authz.admin.services import Services
from authz.engine.postings import Posted, PostedLeg
from authz.model import CallLeg, CallState
from authz.problems import problem

# Cutting asks no service: what is above never changes.
TREE = Tree(cast(Services, None), "top", frozenset({"above", "master"}))
MASTER = Tree(cast(Services, None), "master", frozenset())


def call(account: str, *legs: str) -> CallState:
    """Return an open call with these legs."""
    return CallState(
        call_id="c1", account=account, state="open", class_="national", direction="outbound",
        number="+1", switch=None, authorized_at=None, used_seconds=0, seconds=60, final=False,
        lease_until=None, legs=tuple(CallLeg(leg, "per_minute", "0", "0", "0") for leg in legs),
    )  # fmt: skip


def test_legs_above_are_left_out() -> None:
    cut = TREE.cut(CallList((call("leaf", "leaf", "top", "above", "master"),), "0-1"))
    assert [leg.account for leg in cut.calls[0].legs] == ["leaf", "top"]
    assert cut.cursor == "0-1"
    posted = Posted(
        account="top", reference="r", kind="sms", duplicate=False, sequence=1,
        legs=(PostedLeg("top", "-1", "1", "1"), PostedLeg("above", "-1", "1", "1")),
    )  # fmt: skip
    assert [leg.account for leg in TREE.cut(posted).legs] == ["top"]


def test_the_parent_of_the_top_is_no_parent() -> None:
    assert TREE.cut(AccountView(id="top", parent="above")).parent is None
    assert TREE.cut(AccountView(id="leaf", parent="top")).parent == "top"


def test_what_holds_nothing_of_it_stays_the_same() -> None:
    answer = CallList((call("leaf", "leaf", "top"),), None)
    assert TREE.cut(answer) is answer
    whole = call("leaf", "leaf", "master")
    assert MASTER.cut(whole) is whole
    assert TREE.cut(None) is None


def test_a_problem_names_nobody_above() -> None:
    refused = problem(402, "insufficient_credit", "master has 1", account="master")
    cut = TREE.cut_problem(refused)
    assert (cut.account, cut.reason, cut.status) == (None, "insufficient_credit", 402)
    assert "master" not in cut.detail
    own = problem(402, "insufficient_credit", "top has 1", account="top")
    assert TREE.cut_problem(own) is own
