"""Whatever a switch sends or a caller makes it send: a question, a settle, or a clear refusal."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any
from urllib.parse import quote

import pytest
from freeswitch.doors import CDR, RULES, lookup, recorded
from hypothesis import example, given
from hypothesis import strategies as st

from authz.config.freeswitch import FreeswitchSettings
from authz.config.freeswitch_web import FreeswitchWebSettings
from authz.errors import CallUnknown, InvalidInput
from authz.hooks.freeswitch.cdr import read_cdr
from authz.hooks.freeswitch.cdr_settle import CdrRules, Ignored, settle_of
from authz.hooks.freeswitch.curl_lookup import Question, event_of_form, read_form, read_lookup
from authz.hooks.freeswitch.dialplan_answers import DialplanAnswers
from authz.hooks.freeswitch.dialplan_xml import Action, extension
from authz.hooks.freeswitch.durations import cut_seconds, whole_seconds
from authz.hooks.freeswitch.lookup import Lookup
from authz.hooks.problems import Problem
from authz.model import Grant, SettleRequest
from authz.reasons import REASONS

FIND = Lookup(RULES).find
CDR_RULES = CdrRules(("public",), FIND, "up")
BRIDGE = "{x=${y}}sofia/gateway/{account}/{number}/{digits}/{dialled}"
FIELDS = (
    "Hunt_Destination_Number", "Hunt_Context", "Hunt_Caller_ID_Number", "Unique_ID", "section",
    "FreeSWITCH_Switchname", "Answer_State", "Event_Date_Timestamp", "variable_authz_account",
    "variable_authz_direction", "variable_authz_destination", "variable_authz_rate_number",
    "variable_authz_call", "variable_sip_from_user",
)  # fmt: skip
VARIABLES = (
    "uuid", "direction", "billmsec", "end_uepoch", "answer_uepoch", "hangup_cause", "start_stamp",
    "authz_call", "authz_account", "authz_direction", "authz_to", "authz_reason", "authz_leg",
    "authz_started_us", "authz_rate_number", "sip_from_user",
)  # fmt: skip
#: Characters that mean something to XML, dial strings, the switch's parsers and its expansion.
TEXTS = st.text(st.sampled_from("0149+*#-_.ax ,|^&;'\"<>${}[]()\\/@%=\n\r\t\x00\x7fé\ud7ff")) | (
    st.text(max_size=300).filter(lambda text: not re.search("[\ud800-\udfff]", text))
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


def granted(question: Question, seconds: int | None, call_class: str, number: str) -> Grant:
    """Return a decision as the engine would give it."""
    return Grant(
        call_id=question.request.call_id, allowed=True, reason="ok", class_=call_class,
        number=number, seconds=seconds, final=False, extend_at=45, ring_seconds=180, legs=(),
    )  # fmt: skip


def actions_of(document: bytes) -> list[tuple[str, str]]:
    """Return the applications of a document, which must be one."""
    root = ElementTree.fromstring(document)
    assert root.tag == "document"
    return [(one.attrib["application"], one.attrib["data"]) for one in root.iter("action")]


@given(st.binary(max_size=2_000) | st.text("a=&%41+é", max_size=60).map(str.encode))
def test_any_form_is_read_or_refused(body: bytes) -> None:
    form = read_form(body)
    event_of_form(form)
    assert read_lookup(form, ("",), FIND, 60) is None
    form[b"section"] = b"dialplan"
    assert read_lookup(form, ("",), FIND, 60) is not None or form.get(b"Hunt-Context")


@given(st.integers(2_000, 2_200))
def test_a_form_of_too_many_fields_is_refused(fields: int) -> None:
    body = b"&".join(b"%d=" % number for number in range(fields))
    if fields <= 2_048:
        read_form(body)
    else:
        with pytest.raises(Problem):
            read_form(body)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_the_first_of_two_fields_counts(one: bytes, other: bytes) -> None:
    first, second = quote(one).encode(), quote(other).encode()
    event = event_of_form(read_form(b"x=" + first + b"&x=" + second))
    assert event.get("x") == one.decode("utf-8", "replace")


@given(
    st.dictionaries(st.sampled_from(FIELDS), TEXTS, max_size=6),
    st.integers(2, 86_400) | st.none(),
    st.sampled_from([None, BRIDGE]),
    st.booleans(),
)
@example({"Hunt_Destination_Number": "911;${x}"}, None, BRIDGE, False)
def test_nothing_of_a_caller_reaches_the_dialplan_but_plain_words(
    fields: dict[str, str], seconds: int | None, bridge: str | None, is_emergency: bool
) -> None:
    question = read_lookup(read_form(lookup(**fields)), ("credit_curl",), FIND, 7_200)
    if question is None:
        return
    answers = DialplanAnswers(FreeswitchSettings(), FreeswitchWebSettings(bridge=bridge))
    refusal = question.flaw
    if refusal is not None and not is_emergency:
        document = answers.refused(question.context, refusal, is_answered=question.is_answered)
        assert actions_of(document)[-1][0] in ("respond", "hangup")
        return
    # The engine lets only emergency calls of a flawed question pass, with a number of its own.
    if refusal is not None or is_emergency:
        grant = granted(question, None, "emergency", "911")
    else:
        grant = granted(question, seconds, "national", "+14155550100")
    actions = actions_of(answers.released(question, grant))
    assert actions[-1][0] == ("transfer" if bridge is None else "bridge")
    for application, data in actions:
        text = data.replace("${uuid}", "").replace("{x=${y}}", "")
        assert re.fullmatch(r"[A-Za-z0-9+*#._@=/ -]*", text), (application, data)
        if application == "transfer":
            assert re.fullmatch(r"[A-Za-z0-9+*#]\S*( [A-Za-z0-9+*#]\S*){2}", data)
    cuts = [data for _, data in actions if "sched_hangup" in data or "allotted_timeout" in data]
    assert len(cuts) == (0 if question.is_repeat or grant.seconds is None else 1)


@given(TEXTS, st.lists(st.tuples(TEXTS, TEXTS), max_size=3))
def test_any_text_stays_one_attribute(context: str, actions: list[tuple[str, str]]) -> None:
    document = extension(context, [Action(*one) for one in actions])
    legal = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
    # A parser sees a blank in place of a line end or tab in an attribute, unless it is escaped.
    expected = [(legal.sub("\ufffd", name), legal.sub("\ufffd", data)) for name, data in actions]
    assert actions_of(document) == expected


@given(st.integers(2, 2_678_400))
def test_a_cut_is_over_before_its_grant(granted_seconds: int) -> None:
    cut = cut_seconds(granted_seconds)
    assert cut >= 1
    # The switch is late by half a second at most, and begun seconds are charged.
    assert whole_seconds(cut * 1_000 + 500, "up") <= granted_seconds


@given(st.binary(max_size=400) | JSON.map(json.dumps).map(str.encode))
def test_any_record_is_read_or_refused(body: bytes) -> None:
    try:
        found = settle_of(read_cdr(body), CDR_RULES)
    except (InvalidInput, CallUnknown):
        return
    assert isinstance(found, SettleRequest | Ignored)


@given(st.dictionaries(st.sampled_from(VARIABLES), JSON | TEXTS, max_size=8), JSON, JSON)
def test_a_record_with_odd_members_is_settled_ignored_or_refused(
    odd: dict[str, Any], callflow: Any, switchname: Any
) -> None:
    tree = json.loads(recorded(CDR).body)
    tree["variables"].update(odd)
    tree["switchname"] = switchname
    if callflow:
        tree["callflow"] = callflow
    try:
        found = settle_of(read_cdr(json.dumps(tree).encode()), CDR_RULES)
    except (InvalidInput, CallUnknown):
        return
    assert isinstance(found, SettleRequest | Ignored)


@given(
    st.dictionaries(
        st.sampled_from(("authz_to", "sip_h_X-Note", "authz_reason")), TEXTS, max_size=3
    ),
    st.booleans(),
)
def test_every_encoding_says_the_same(texts: dict[str, str], are_values_encoded: bool) -> None:
    marks = {"authz_call": recorded_uuid(), "authz_account": "sub", "authz_direction": "outbound"}
    tree = json.loads(recorded(CDR).body)
    variables = {**tree["variables"], **{name: quote(one) for name, one in texts.items()}, **marks}
    if not are_values_encoded:
        variables = {**variables, **texts, "start_stamp": "2026-11-22 12:36:08"}
    tree["variables"] = variables
    plain = json.dumps(tree).encode()
    bodies = [plain, b"cdr=" + base64.b64encode(plain), b"cdr=" + plain]
    if not are_values_encoded:
        bodies.append(b"cdr=" + quote(plain).encode())
    outcomes = [outcome_of(body) for body in bodies]
    assert len(set(outcomes)) == 1


def recorded_uuid() -> str:
    """Return the uuid of the recorded call."""
    uuid: str = json.loads(recorded(CDR).body)["variables"]["uuid"]
    return uuid


def outcome_of(body: bytes) -> str:
    """Return what a record comes to, without what depends on the present time."""
    try:
        return repr(settle_of(read_cdr(body), CDR_RULES))
    except InvalidInput as error:
        return str(error)


def test_every_reason_has_a_status_line() -> None:
    from authz.hooks.freeswitch.refusals import refusal_of

    for reason in REASONS.values():
        if reason.name != "ok":
            assert re.fullmatch(r"[4-6]\d\d [A-Z/][A-Za-z /]+", refusal_of(reason).status_line)
