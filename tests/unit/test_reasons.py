"""The table of reasons: complete, unambiguous, and the same in its document and the scripts."""

from __future__ import annotations

import re
from pathlib import Path

from authz import reasons_doc
from authz.reasons import BY_CODE, CLASSES, REASONS, CallClass, Direction, Outcome
from authz.store.constants import lua_constants

ROOT = Path(__file__).parents[2]


def test_codes_and_names_are_unique():
    assert len(BY_CODE) == len(REASONS)
    assert all(REASONS[row.name] is row for row in BY_CODE.values())


def test_denials_carry_what_a_switch_needs():
    for row in REASONS.values():
        assert re.fullmatch(r"[a-z][a-z_]*", row.name)
        assert row.meaning.endswith(".")
        assert re.fullmatch(r"[A-Z][A-Z_]*", row.hangup_cause)
        if row.name != "ok":
            assert 400 <= row.sip_status < 700


def test_an_inbound_call_is_barred_inbound():
    row = REASONS["insufficient_credit"]
    assert row.cause(Direction.OUTBOUND.label) == "OUTGOING_CALL_BARRED"
    assert row.cause(Direction.INBOUND.label) == "INCOMING_CALL_BARRED"
    assert REASONS["max_calls_exceeded"].cause("inbound") == "USER_BUSY"


def test_reasons_and_outcomes_never_mix():
    assert min(BY_CODE) == 0
    assert max(Outcome) < 0


def test_classes_are_named_as_callers_write_them():
    assert CLASSES["tollfree"] is CallClass.TOLLFREE
    assert list(CLASSES.values()) == list(CallClass)


def test_scripts_can_name_every_reason():
    constants = lua_constants()
    for row in REASONS.values():
        assert constants[f"REASON_{row.name.upper()}"] == row.code


def test_the_document_is_generated():
    written = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    assert written == reasons_doc.markdown(), "run python -m authz.reasons_doc > docs/reasons.md"
