"""Discounts by class on real stores: held, extended, settled and told alike, leg by leg."""

from __future__ import annotations

from decimal import Decimal

import pytest
from world import RETAIL, TOLLFREE, UK, US, WHOLESALE, PriceList, World, make_row, per_minute

from authz.admin.messages import PriceQuery
from authz.admin.prices import price
from authz.engine.accounts import patched
from authz.engine.inspect import call_state
from authz.errors import InvalidInput
from authz.model import AccountConfig, Grant, Settlement, Trunks
from authz.reasons import CallClass


class NamedPriceList(PriceList):
    """A price list that says what it is called."""

    id: str


EIGHTH = {"international": Decimal("12.5")}


@pytest.fixture
async def other(world, any_store_url, tmp_path):
    """A second daemon on the same store."""
    other = await World.start(any_store_url, tmp_path / "other")
    yield other
    await other.close()


async def store_seconds(world: World) -> int:
    """Return the store's time."""
    return int((await world.client.execute("TIME"))[0])


def charged(answer: object) -> list[str]:
    """Return what every leg of a settlement was charged."""
    assert isinstance(answer, Settlement)
    return [leg.charged for leg in answer.legs]


async def test_each_leg_pays_by_its_own_accounts_discounts(world):
    await world.pair(discounts=EIGHTH)
    grant = await world.granted("c1", UK)
    # 0.0137 less an eighth, the half micro for the seller; the reseller pays what it paid.
    assert [leg.held for leg in grant.legs] == ["0.011988", "0.01"]
    assert [(leg.rate, leg.discount) for leg in grant.legs] == [("0.0137", "12.5"), ("0.01", None)]
    grant = await world.reserve("c1", 45)
    assert [leg.held for leg in grant.legs] == ["0.020979", "0.018"]
    assert grant.legs[0].discount == "12.5"
    assert (await world.state("sub")).used == 10_275 - 1_284
    assert charged(await world.settle("c1", 61)) == ["0.012187", "0.011"]
    again = await world.settle("c1", 61)
    assert again.duplicate
    assert charged(again) == ["0.012187", "0.011"]
    assert await world.balance("sub") == 10_000_000 - 12_187


async def test_another_class_pays_the_deck(world):
    await world.pair(discounts=EIGHTH)
    grant = await world.granted("c1", US)
    assert [(leg.held, leg.discount) for leg in grant.legs] == [("0.01", None), ("0.005", None)]
    assert charged(await world.settle("c1", 60)) == ["0.01", "0.005"]


async def test_the_class_is_the_numbers_whatever_the_row_says(world):
    row = make_row("44", per_minute("0.0137", 1), call_class=CallClass.NATIONAL)
    world.decks["retail"] = PriceList({"44": row})
    await world.pair(discounts={"international": Decimal(50), "national": Decimal(10)})
    assert (await world.granted("c1", UK)).legs[0].held == "0.00685"
    assert charged(await world.settle("c1", 60)) == ["0.00685", "0.01"]


async def test_inbound_calls_are_discounted_too(world):
    await world.pair(discounts=EIGHTH)
    grant = await world.granted("c1", UK, direction="inbound")
    assert grant.legs[0].held == "0.011988"
    assert charged(await world.settle("c1", 60)) == ["0.011988", "0.01"]


async def test_credit_buys_what_is_left_after_the_discount(world):
    await world.pair("0.011988", "10", discounts=EIGHTH)
    grant = await world.granted("c1", UK)
    assert (grant.seconds, grant.final, grant.legs[0].available) == (60, False, "0")
    grant = await world.reserve("c1", 30)
    # 60 seconds, as long as another second costs another micro.
    assert (grant.seconds, grant.final) == (60, True)
    assert charged(await world.settle("c1", 60)) == ["0.011988", "0.01"]
    assert await world.balance("sub") == 0


async def test_a_running_call_keeps_the_discount_it_began_with(world, other):
    await world.pair(discounts=EIGHTH)
    await world.granted("c1", UK)
    await world.account("sub", parent="master", deck="retail", discounts={})
    assert (await other.reserve("c1", 30)).legs[0].held == "0.017982"
    assert (await other.granted("c2", UK)).legs[0].held == "0.0137"
    assert charged(await other.settle("c1", 61)) == ["0.012187", "0.011"]
    assert charged(await world.settle("c2", 61)) == ["0.013928", "0.011"]


async def test_a_discount_of_all_of_it_needs_no_credit(world):
    await world.pair("0", "10", discounts={"international": Decimal(100)})
    grant = await world.granted("c1", UK)
    assert (grant.seconds, grant.final) == (60, False)
    assert [(leg.held, leg.discount) for leg in grant.legs] == [("0", "100"), ("0.01", None)]
    assert charged(await world.settle("c1", 6_000)) == ["0", "1"]


async def test_a_settle_of_an_unknown_call_is_discounted(world):
    await world.pair(discounts=EIGHTH)
    ended_at = await store_seconds(world) - 30
    numbers = {"to": UK, "direction": "outbound", "ended_at": ended_at}
    assert charged(await world.settle("c1", 61, **numbers)) == ["0.012187", "0.011"]


async def test_an_adopted_call_is_discounted(world):
    await world.pair(discounts=EIGHTH)
    grant = await world.reserve("c1", 60, to=UK)
    assert isinstance(grant, Grant)
    assert grant.legs[0].discount == "12.5"
    assert charged(await world.settle("c1", 61)) == ["0.012187", "0.011"]


async def test_an_orphan_is_charged_with_its_discount(world):
    await world.pair(discounts=EIGHTH)
    await world.granted("c1", UK, switch="fs1")
    await world.reserve("c1", 30)
    await world.engine.switch_restarted("fs1")
    await world.sweeper.sweep()
    assert await world.balance("sub") == 10_000_000 - (6_850 - 856)
    assert charged(await world.settle("c1", 61)) == ["0.012187", "0.011"]
    assert await world.balance("sub") == 10_000_000 - 12_187


async def test_the_dearest_call_is_the_dearest_paid(world):
    await world.pair(discounts=EIGHTH, max_call_cost="0.011988")
    grant = await world.granted("c1", UK, seconds=600)
    assert (grant.seconds, grant.final) == (60, True)
    await world.settle("c1", 60)


async def test_max_rate_goes_by_the_decks_price(world):
    await world.pair(discounts={"international": Decimal(90)}, max_rate="0.01")
    assert await world.denied("c1", UK) == "rate_too_high"


async def test_a_trunk_and_tollfree_tell_no_discount(world):
    world.decks["retail"] = PriceList({"1": per_minute("0.01")})
    discounts = {"national": Decimal(50), "tollfree": Decimal(50)}
    await world.pair(discounts=discounts, trunks=Trunks(outbound=1))
    grant = await world.granted("c1", US)
    assert (grant.legs[0].billing, grant.legs[0].discount) == ("trunk", None)
    assert (await world.granted("c2", TOLLFREE)).legs[0].discount is None
    assert charged(await world.settle("c1", 60)) == ["0", "0.005"]
    assert charged(await world.settle("c2", 60)) == ["0", "0"]


async def test_prices_and_calls_tell_the_discount(world):
    await world.pair(discounts=EIGHTH)
    for name, deck in (("retail", RETAIL), ("wholesale", WHOLESALE)):
        world.decks[name] = NamedPriceList(deck.rows)
        world.decks[name].id = name
    context = world.engine.context
    answer = await price(context, PriceQuery(to=UK, account="sub", seconds=61))
    assert [(leg.cost, leg.rate, leg.discount) for leg in answer.legs] == [
        ("0.012187", "0.0137", "12.5"), ("0.011", "0.01", None),
    ]  # fmt: skip
    bought = await price(context, PriceQuery(to=UK, account="sub", amount="0.012187"))
    assert bought.legs[0].seconds == 61
    await world.granted("c1", UK)
    state = await call_state(context, "sub", "c1")
    assert [leg.discount for leg in state.legs] == ["12.5", None]
    await world.settle("c1", 0)


def test_a_merge_patch_takes_text_and_numbers() -> None:
    config = patched(AccountConfig(), {"discounts": {"national": "12.50", "premium": 7}})
    assert config.discounts == {"national": Decimal("12.5"), "premium": Decimal(7)}
    config = patched(config, {"discounts": {"national": None}})
    assert config.discounts == {"premium": Decimal(7)}
    for changes in ({"discounts": {"nonsense": 1}}, {"discounts": {"national": "a lot"}}):
        with pytest.raises(InvalidInput) as refused:
            patched(config, changes)
        assert refused.value.field.startswith("discounts")
