"""The accounts of one tree, page by page, against a plain walk in Python."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from audit_helper import assert_clean_audit
from world import World

from authz.engine import account_tree
from authz.errors import InvalidInput, NotFound
from authz.model import CHAIN_LENGTH_MAX, AccountConfig


@pytest.fixture
async def business(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    world = await World.start(store_url, tmp_path)
    yield world
    await assert_clean_audit(world.client)
    await world.close()


class Forest:
    """Random trees of accounts, in the store and in a dictionary."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.parents: dict[str, str | None] = {}

    async def grow(self, rng: random.Random, accounts: int) -> None:
        """Create accounts under random parents; their ids are in no order."""
        for number in rng.sample(range(10 * accounts), accounts):
            account = rng.choice("abcXYZ") + f"{number}"
            possible = [one for one in self.parents if self.depth(one) < CHAIN_LENGTH_MAX]
            parent = rng.choice([None, *possible])
            await self.world.accounts.put(account, AccountConfig(parent=parent))
            self.parents[account] = parent

    def depth(self, account: str) -> int:
        """Return the length of an account's chain."""
        parent = self.parents[account]
        return 1 if parent is None else 1 + self.depth(parent)

    def below(self, top: str) -> list[str]:
        """Return an account and all below it, each before its children, these by id."""
        children = sorted(one for one, parent in self.parents.items() if parent == top)
        return [top, *(inner for child in children for inner in self.below(child))]


async def pages(world: World, top: str, q: str | None, limit: int) -> list[str]:
    """Return the ids of all pages of a tree."""
    found: list[str] = []
    cursor = None
    while True:
        page = await world.accounts.page(under=top, q=q, cursor=cursor, limit=limit)
        assert len(page.records) <= limit
        found += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("step", [2, 500])
async def test_pages_are_the_tree_in_order(
    business: World, rng: random.Random, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(account_tree, "NAMES_MAX", step)
    forest = Forest(business)
    await forest.grow(rng, 40)
    for top in forest.parents:
        expected = forest.below(top)
        for limit in (1, 3, 500):
            assert await pages(business, top, None, limit) == expected
        assert await pages(business, top, "X1", 2) == [
            one for one in expected if "x1" in one.lower()
        ]


async def test_one_page_looks_through_so_many(
    business: World, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_tree, "_EXAMINED_MAX", 3)
    forest = Forest(business)
    await forest.grow(rng, 20)
    for top in forest.parents:
        assert await pages(business, top, None, 500) == forest.below(top)
        assert await pages(business, top, "nothing", 500) == []


async def test_pages_go_on_after_an_account_that_was_closed(business: World) -> None:
    for account, parent in (
        ("top", None), ("a", "top"), ("a1", "a"), ("a2", "a"), ("a3", "a"), ("b", "top"),
    ):  # fmt: skip
        await business.accounts.put(account, AccountConfig(parent=parent))
    first = await business.accounts.page(under="top", limit=4)
    assert [one.id for one in first.records] == ["top", "a", "a1", "a2"]
    await business.accounts.close("a2")
    rest = await business.accounts.page(under="top", cursor=first.cursor)
    assert [one.id for one in rest.records] == ["a3", "b"]


async def test_a_cursor_of_another_tree_shows_nothing(business: World) -> None:
    for account, parent in (("top", None), ("a", "top"), ("other", None), ("o1", "other")):
        await business.accounts.put(account, AccountConfig(parent=parent))
    for cursor in ("other", "top/other", "top/o1", "other/o1", "a", "", "/"):
        with pytest.raises(InvalidInput, match="cursor"):
            await business.accounts.page(under="top", cursor=cursor)
    # A name that never was has a place among the children, and nothing below it.
    page = await business.accounts.page(under="top", cursor="top/A")
    assert [one.id for one in page.records] == ["a"]


async def test_a_parent_is_looked_for_in_the_tree(business: World) -> None:
    for account, parent in (("top", None), ("a", "top"), ("a1", "a"), ("other", None)):
        await business.accounts.put(account, AccountConfig(parent=parent))
    page = await business.accounts.page(under="top", parent="a")
    assert [one.id for one in page.records] == ["a1"]
    for words in ({"under": "top", "parent": "other"}, {"under": "nobody"}):
        with pytest.raises(NotFound):
            await business.accounts.page(**words)
