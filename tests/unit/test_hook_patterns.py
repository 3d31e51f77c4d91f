"""Words that stand in for patterns: they never accept what the pattern refuses."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.inspect import StrType

from authz.hooks.bodies import JsonBody
from authz.hooks.patterns import without_patterns, word_of
from authz.hooks.problems import Problem
from authz.model import ACCOUNT_ID_PATTERN, AuthorizeRequest, ReserveRequest, SettleRequest

STRUCTS = (AuthorizeRequest, ReserveRequest, SettleRequest)
AUTHORIZE = JsonBody(AuthorizeRequest)
VISIBLE = StrType(min_length=1, max_length=255, pattern=r"^[!-~]+$(?!\n)")
ACCOUNT = StrType(pattern=ACCOUNT_ID_PATTERN)
CAUSE = StrType(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*\Z")
TEXTS = st.text(st.characters(max_codepoint=0x17F), max_size=5) | st.sampled_from(
    ["", "a\n", "\n", "a\nb", "\r", "é", "\x00", "\x7f", *("x" * size for size in range(60, 70))]
    + ["x" * size for size in range(253, 258)]
)


def matches(kind: StrType, text: str) -> bool:
    """Say what msgspec does."""
    is_long_enough = (kind.min_length or 0) <= len(text)
    is_short_enough = kind.max_length is None or len(text) <= kind.max_length
    return is_long_enough and is_short_enough and bool(re.search(kind.pattern or "", text))


@given(text=TEXTS)
@pytest.mark.parametrize("kind", [VISIBLE, ACCOUNT, CAUSE])
def test_a_word_is_what_its_pattern_allows_of_ascii(kind: StrType, text: str) -> None:
    word = word_of(kind)
    assert word is not None
    assert word.allows(text) == (text.isascii() and matches(kind, text))


@pytest.mark.parametrize("struct", STRUCTS)
def test_every_pattern_of_a_request_is_one_that_is_known(struct: type[msgspec.Struct]) -> None:
    patterned = {
        field.name
        for field in msgspec.inspect.type_info(struct).fields  # type: ignore[attr-defined]
        for kind in getattr(field.type, "types", (field.type,))
        if isinstance(kind, StrType) and kind.pattern
    }
    assert set(without_patterns(struct)[1]) == patterned >= {"call_id", "account", "switch"}


@pytest.mark.parametrize(
    "pattern",
    [
        r"[a-z]+", r"^[a-z]+", r"^[a-z]+$", r"^[a-z]+|x$(?!\n)", r"^[a-z]{2,3}$(?!\n)",
        r"^(?!x)[a-z]+$(?!\n)", r"^[a-z]+[0-9]$(?!\n)", r"^a[a-z]+$(?!\n)", r"^[\w]+$(?!\n)",
        r"^[a-z]+?$(?!\n)", "", None,
    ],
)  # fmt: skip
def test_any_other_pattern_is_left_alone(pattern: str | None) -> None:
    assert word_of(StrType(pattern=pattern)) is None


@given(call_id=TEXTS, account=TEXTS, switch=st.none() | TEXTS, more=st.sampled_from(
    [{}, {"direction": "sideways"}, {"seconds": 0}, {"x": 1}, {"from": "a" * 129}, {"to": 5}]
))  # fmt: skip
def test_a_body_is_read_as_by_its_struct_alone(
    call_id: str, account: str, switch: str | None, more: dict[str, object]
) -> None:
    members = {"call_id": call_id, "account": account, "to": "1", "switch": switch, **more}
    body = msgspec.json.encode(members)
    expected, wrong = None, ""
    try:
        expected = msgspec.json.decode(body, type=AuthorizeRequest)
    except msgspec.ValidationError as error:
        wrong = str(error)
    if expected is None:
        with pytest.raises(Problem) as caught:
            AUTHORIZE.decode(body)
        assert caught.value.document.detail in wrong
        return
    value = AUTHORIZE.decode(body)
    assert isinstance(value, AuthorizeRequest)
    assert msgspec.structs.asdict(value) == msgspec.structs.asdict(expected)
