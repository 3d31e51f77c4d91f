"""Kazoo's rates become a deck that costs the same, or are refused with place and reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz.errors import DeckError, InvalidInput
from authz.hooks.kazoo.imports.rates import RateOptions, RateReading, read_rates
from authz.rating.importer import ImportedDeck, ImportOptions, import_deck
from authz.rating.rows import rate_of

US = {
    "_id": "US-1", "pvt_type": "rate", "prefix": 1, "rate_cost": 0.02, "rate_increment": 60,
    "rate_minimum": 60, "rate_surcharge": 0.0, "direction": ["inbound", "outbound"],
    "routes": ["^\\+?1.+$"], "options": [], "rate_name": "US-1",
}  # fmt: skip


def read(rates: Any, **options: Any) -> RateReading:
    return read_rates("rates.json", json.dumps(rates).encode(), RateOptions(**options))


def read_csv(text: str, **options: Any) -> RateReading:
    return read_rates("rates.csv", text.encode(), RateOptions(**options))


def imported(reading: RateReading) -> ImportedDeck:
    return import_deck(reading.deck_csv(), ImportOptions(currency="USD"))


def costs(reading: RateReading, *seconds: int) -> list[int]:
    """Return the costs in micros by the only row of the deck."""
    (row,) = imported(reading).rows
    assert row.terms is not None
    rate = rate_of(row.terms)
    return [rate.cost(one) for one in seconds]


def kazoo_units(rate: int, minimum: int, increment: int, surcharge: int, free: int, s: int) -> int:
    """Return Kazoo's cost of `s` seconds in units, reckoned exactly (section 3.3)."""
    if s <= 0 or s <= free:
        return 0
    steps = 0 if s <= minimum else -(-(s - minimum) // increment)
    return (60 * surcharge + rate * minimum + steps * increment * rate) // 60


def test_a_document_becomes_a_row() -> None:
    reading = read(US)
    assert imported(reading).report.bad_lines == 0
    (row,) = imported(reading).rows
    assert (row.prefix, row.direction, row.description) == ("1", None, "US-1")
    assert costs(reading, 0, 1, 60, 61) == [0, 20_000, 20_000, 40_000]


@pytest.mark.parametrize(
    ("minimum", "increment", "surcharge", "free"),
    [(60, 60, 0, 0), (30, 6, 0, 0), (10, 60, 0.05, 0), (0, 1, 0.0137, 5), (1, 0, 0, 60)],
)
@pytest.mark.parametrize("cost", [0.02, 0.0185, 1, 0.1234])
def test_costs_are_kazoos_with_its_rounding(
    minimum: int, increment: int, surcharge: float, free: int, cost: float
) -> None:
    rate = {
        **US, "rate_cost": cost, "rate_minimum": minimum, "rate_increment": increment,
        "rate_surcharge": surcharge, "rate_nocharge_time": free,
    }  # fmt: skip
    reading = read(rate, cuts_units=True)
    seconds = [0, 1, 5, 6, 10, 11, 30, 31, 59, 60, 61, 70, 119, 3601]
    units = [
        kazoo_units(
            round(cost * 10_000), minimum, increment or 60, round(surcharge * 10_000), free, one
        )
        for one in seconds
    ]
    assert costs(reading, *seconds) == [one * 100 for one in units]


def test_exact_costs_keep_what_kazoo_rounds_away() -> None:
    rate = {**US, "rate_cost": 0.00125, "rate_minimum": 1, "rate_increment": 1}
    assert costs(read(rate), 60) == [1_250]
    assert costs(read(rate, cuts_units=True), 60) == [1_300]


def test_csv_lines_and_documents_agree() -> None:
    text = (
        "account_id,prefix,iso_country_code,rate_cost,rate_increment,rate_minimum,direction,weight\n"
        ",4420,GB,0.0185,6,30,outbound,10\n"
        ',"33",FR,0.02,60,60,"inbound,outbound",\n'
    )
    deck = imported(read_csv(text)).rows
    assert [(row.prefix, row.direction is None) for row in deck] == [("33", True), ("4420", False)]


def test_what_the_carrier_charges_makes_a_wholesale_deck() -> None:
    rate = {**US, "pvt_internal_rate_cost": 0.0081, "rate_minimum": 1, "rate_increment": 1}
    assert costs(read(rate, is_internal=True), 60) == [8_100]
    without = read(US, is_internal=True)
    assert without.refused == 1
    assert "pvt_internal_rate_cost" in without.remarks[0].field


def test_of_several_rates_the_lower_weight_is_taken_by_direction() -> None:
    both = {**US, "weight": 30}
    cheap = {**US, "_id": "US-1-cheap", "rate_cost": 0.01, "weight": 10, "direction": ["outbound"]}
    reading = read([both, cheap])
    assert [(row.price_nanos, way) for row, way in reading.rows] == [
        (20_000_000, "inbound"),
        (10_000_000, "outbound"),
    ]
    assert imported(reading).report.bad_lines == 0


def test_equals_are_no_choice() -> None:
    other = {**US, "_id": "other", "rate_cost": 0.03}
    reading = read([US, other])
    assert (reading.refused, dict(reading.blocked)) == (1, {"1": "rates.json, document 2"})
    assert "same prefix and weight" in reading.remarks[-1].reason
    assert imported(reading).report.blocked == 1
    same = read([US, {**US, "_id": "same"}])
    assert same.refused == 0
    assert [row.prefix for row, _ in same.rows] == ["1"]


def test_rates_that_kazoo_never_uses_are_left_out() -> None:
    reading = read([US, {**US, "prefix": 44, "routes": []}])
    assert [row.prefix for row, _ in reading.rows] == ["1"]
    assert reading.remarks[0].field == "routes"
    assert reading.refused == 0


@pytest.mark.parametrize(
    "route",
    [
        "^\\+?44.+$",
        "^\\+44\\d+$",
        "^\\+?44(\\d+)$",
        "^44\\d{10}$",
        "^\\+?(44.+)$",
        "^(\\+?44\\d*)$",
    ],
)
def test_routes_that_say_the_prefix_again_are_fine(route: str) -> None:
    assert read({**US, "prefix": "44", "routes": [route]}).refused == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prefix": None}, "prefix"),
        ({"prefix": "44x"}, "prefix"),
        ({"prefix": True}, "prefix"),
        ({"rate_cost": None}, "rate_cost"),
        ({"rate_cost": "cheap"}, "rate_cost"),
        ({"rate_cost": -1}, "rate_cost"),
        ({"rate_cost": 1e300}, "rate_cost"),
        ({"rate_cost": "0.0000000001"}, "rate_cost"),
        ({"rate_surcharge": 0.00000001}, "rate_surcharge"),
        ({"rate_increment": 0.5}, "rate_increment"),
        ({"rate_minimum": -1}, "rate_minimum"),
        ({"direction": ["sideways"]}, "direction"),
        ({"routes": ["^\\+?1416.+$"]}, "routes"),
        ({"routes": [7]}, "routes"),
        ({"weight": {}}, "weight"),
    ],
)
def test_bad_rates_name_place_and_field_and_block_their_prefix(
    change: dict[str, Any], field: str
) -> None:
    good = {**US, "prefix": 33, "routes": ["^\\+?33.+$"]}
    reading = read([good, {**US, **change}])
    assert reading.refused == 1
    (remark,) = [one for one in reading.remarks if one.refuses]
    assert (remark.place, remark.field) == ("rates.json, document 2", field)
    assert list(reading.blocked) == ([] if field == "prefix" else ["1"])
    assert len(reading.places) == len(imported(reading).rows) == 1 + len(reading.blocked)


def test_a_file_of_several_ratedecks_needs_to_be_told_which() -> None:
    gold = {**US, "ratedeck_id": "gold"}
    basic = {**US, "ratedeck_id": "basic", "rate_cost": 0.05}
    with pytest.raises(DeckError, match="basic, gold"):
        read([gold, basic])
    (row, _) = read([gold, basic], ratedeck_id="basic").rows[0]
    assert row.price_nanos == 50_000_000


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1]", b'{"a":NaN}', b"[" * 100_000, b"\xff\xfe\x00", b"a,b\n1,2\n",
     b"prefix,rate_cost\n1,2,3\n", b'prefix,rate_cost\n"1,2\n'],
)  # fmt: skip
def test_what_is_no_file_of_rates_is_an_error(data: bytes) -> None:
    try:
        reading = read_rates("x", data, RateOptions())
    except (InvalidInput, DeckError):
        return
    assert reading.rows == ()
