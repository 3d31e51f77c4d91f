"""Amounts: decimal strings outside, integer micros inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.errors import InvalidInput
from authz.money import BOUND_MICROS, format_amount, parse_amount


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0", 0),
        ("12.34", 12_340_000),
        ("-0.000001", -1),
        ("2000000000", BOUND_MICROS),
        ("-2000000000.000000", -BOUND_MICROS),
        ("007.10", 7_100_000),
    ],
)
def test_amounts(text, micros):
    assert parse_amount(text) == micros


@pytest.mark.parametrize(
    "text",
    ["", "-", ".5", "5.", "1,5", "1e3", "+1", " 1", "1 ", "1.0000001", "٣", "1_000", "NaN", "1\n"],
)
def test_what_is_no_amount_is_named(text):
    with pytest.raises(InvalidInput) as caught:
        parse_amount(text, "credit_limit")
    assert caught.value.field == "credit_limit"


@pytest.mark.parametrize("text", ["2000000000.000001", "-2000000001", "9999999999"])
def test_amounts_beyond_the_bound_are_refused(text):
    with pytest.raises(InvalidInput, match="beyond"):
        parse_amount(text)


def test_a_number_is_no_amount():
    with pytest.raises(InvalidInput, match="decimal string"):
        parse_amount(12)  # type: ignore[arg-type]


@given(st.integers(-BOUND_MICROS, BOUND_MICROS))
def test_text_and_micros_are_the_same_amount(micros):
    assert parse_amount(format_amount(micros)) == micros


def test_amounts_are_written_short():
    assert format_amount(9_990_000) == "9.99"
    assert format_amount(-10) == "-0.00001"
    assert format_amount(5_000_000) == "5"
