"""JSON bodies: each way to be wrong is refused, and the answer names the field or the place."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.hooks.bodies import JsonBody
from authz.hooks.problems import Problem
from authz.model import AuthorizeRequest, SettleRequest
from authz_ext.members import may_repeat_a_name

SETTLE = JsonBody(SettleRequest)
START = b'{"call_id":"c1","account":"acme","seconds":'


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (START + b'"60"}', "seconds"),
        (START + b"60.0}", "seconds"),
        (START + b"-1}", "seconds"),
        (START + b"true}", "seconds"),
        (START + b"null}", "seconds"),
        (START + b"1e400}", "seconds"),
        (START + b"9" * 5_000 + b"}", "seconds"),
        (START + b"99999999999999999999999}", "seconds"),
        (START + b'1,"direction":"sideways"}', "direction"),
        (START + b'1,"answered_at":1.5}', "answered_at"),
        (START + b'1,"from":[]}', "from"),
        (START + b'1,"secnods":2}', "secnods"),
        (START + b'1,"seconds":2}', "seconds"),
        (START + b'1,"s\\u0065conds":2}', "seconds"),
        (b'{"call_id":"c1","call_id":"c1","account":"acme","seconds":1}', "call_id"),
        (b'{"call_id":"","account":"acme","seconds":1}', "call_id"),
        (b'{"call_id":"two words","account":"acme","seconds":1}', "call_id"),
        (b'{"call_id":"c1\\n","account":"acme","seconds":1}', "call_id"),
        (b'{"call_id":"c1","account":"acme\\n","seconds":1}', "account"),
        (b'{"call_id":"c1","account":"../etc","seconds":1}', "account"),
        (b'{"call_id":"c1","account":"acme"}', "seconds"),
        (b'{"call_id":' + b"[" * 50_000, "call_id"),
        (b'{"' + b"x" * 1_000 + b'":1}', "x" * 128),
    ],
)
def test_a_wrong_field_is_named(body: bytes, field: str) -> None:
    with pytest.raises(Problem) as caught:
        SETTLE.decode(body)
    document = caught.value.document
    assert (document.status, document.reason, document.field) == (400, "invalid_input", field)
    assert document.detail


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"  ", "truncated"),
        (b"{", "truncated"),
        (START + b"1,}", "byte 45"),
        (START + b"1} trailing", "trailing"),
        (START + b"NaN}", "byte"),
        (START + b"1", "truncated"),
        (b"\xef\xbb\xbf{}", "byte 0"),
        (START + b'1,"hangup_cause":"\xff"}', "UTF-8"),
        (START + b'1,"hangup_cause":"\\ud800"}', "JSON"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(body: bytes, words: str) -> None:
    with pytest.raises(Problem) as caught:
        SETTLE.decode(body)
    document = caught.value.document
    assert (document.status, document.reason) == (400, "malformed_json")
    assert words in document.detail


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null"])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Problem, match="Expected `object`"):
        SETTLE.decode(body)


def test_values_that_look_like_names_are_no_repetition() -> None:
    body = b'{"call_id":"account","account":"account","to":"to","from":"\\"to\\":"}'
    request = JsonBody(AuthorizeRequest).decode(body)
    assert (request.account, request.from_) == ("account", '"to":')


@given(
    members=st.lists(
        st.tuples(
            st.sampled_from(["call_id", "account", "to", "from", "switch"]),
            st.sampled_from(["c", "to", 'x":', "from", "account"]),
        ),
        max_size=8,
    )
)
def test_a_repeated_name_is_always_found(members: list[tuple[str, str]]) -> None:
    members = [("call_id", "c"), ("account", "a"), ("to", "1"), *members]
    body = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members)
    names = [name for name, _ in members]
    is_unique = len(set(names)) == len(names)
    with contextlib.nullcontext() if is_unique else pytest.raises(Problem):
        JsonBody(AuthorizeRequest).decode(b"{%b}" % body.encode())


@given(
    members=st.lists(
        st.tuples(st.text(max_size=4), st.text(max_size=4) | st.integers() | st.none()), max_size=40
    ),
    blanks=st.sampled_from(["", " ", "\n\t "]),
)
def test_no_repeated_name_is_overlooked(members, blanks) -> None:
    """What may repeat a name is read again; what is passed over has no name twice."""
    parts = [
        f"{json.dumps(name, ensure_ascii=False)}{blanks}:{blanks}{json.dumps(value)}"
        for name, value in members
    ]
    body = ("{" + ",".join(parts) + "}").encode()
    names = [name for name, _ in members]
    if not may_repeat_a_name(body):
        assert len(set(names)) == len(names)
    elif b"\\" not in body and len(names) <= 32:
        assert len(set(names)) < len(names)
