"""Hang-up causes as the ledger keeps them."""

from __future__ import annotations

import msgspec
import pytest

from authz.causes import NORMAL_CAUSES, restore_cause, shorten_cause
from authz.model import SettleRequest


@pytest.mark.parametrize("name", NORMAL_CAUSES.values())
def test_a_cause_of_the_normal_class_takes_one_byte(name: str) -> None:
    short = shorten_cause(name)
    assert len(short.encode()) == 1
    assert restore_cause(short) == name


@pytest.mark.parametrize("text", ["", "ALLOTTED_TIMEOUT", "x", "normal_clearing", "16", "ü"])
def test_any_other_text_stays_as_it_is(text: str) -> None:
    assert shorten_cause(text) == text
    assert restore_cause(text) == text


@pytest.mark.parametrize("cause", ["\\u0010", "BUSY\\n", "\\u007f"])
def test_no_caller_can_write_the_short_form(cause: str) -> None:
    body = f'{{"call_id": "c", "account": "a", "seconds": 1, "hangup_cause": "{cause}"}}'
    with pytest.raises(msgspec.ValidationError, match=r"\$\.hangup_cause"):
        msgspec.json.decode(body, type=SettleRequest)
