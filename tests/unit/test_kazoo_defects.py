"""Each defect of the original has tests that would fail if it were ours, and these exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

from kazoo.cases import CASES

TESTS: Final = Path(__file__).resolve().parents[1]
GUIDE: Final = TESTS.parent / "docs" / "kazoo.md"
_DECISIONS: Final = "integration/test_kazoo_decisions.py"
_CALLS: Final = "integration/test_kazoo_calls.py"
_ORDER: Final = "integration/test_kazoo_decision_order.py"
_WALK: Final = f"{_ORDER}::test_every_branch"

#: By the number of `docs/kazoo.md`. `[…]` names a row of `kazoo.cases`, which one test walks.
DEFECTS: Final = {
    "B1": (f"{_DECISIONS}::test_trunks_are_counted_when_all_ask_at_once",
           f"{_DECISIONS}::test_two_daemons_share_the_questions_and_no_trunk_twice"),
    "B2": (f"{_DECISIONS}::test_credit_is_held_and_not_only_looked_at",
           "adversity/test_kazoo_attacks.py::test_a_thousand_questions_at_once_and_money_for_ten"),
    "B3": (f"{_WALK}[1.2 its own reseller]",),
    "B4": (f"{_WALK}[1.2 soft, but the reseller refuses]",
           f"{_WALK}[1.2 soft, but the reseller refuses what the account may]"),
    "B5": (f"{_WALK}[1.3 calls 0]", f"{_WALK}[1.3 calls N]"),
    "B6": (f"{_DECISIONS}::test_only_denied_calls_are_told_as_denied",),
    "B7": ("adversity/test_kazoo_attacks.py::test_no_odd_field_leaves_a_question_unanswered",
           f"{_DECISIONS}::test_without_the_store_only_what_must_passes",
           f"{_DECISIONS}::test_a_fault_of_ours_lets_nobody_through"),
    "B8": (f"{_DECISIONS}::test_a_hangup_that_overtakes_its_question",
           f"{_CALLS}::test_events_after_an_end_wake_nothing"),
    "B9": ("integration/test_kazoo_broker.py::test_hangups_wait_for_a_day_while_none_of_us_runs",
           "adversity/test_kazoo_daemon.py::test_a_hangup_that_nobody_was_there_to_hear_is_charged",
           f"{_CALLS}::test_ends_are_kept_on_disk_while_the_store_is_away"),
    "B10": (f"{_CALLS}::test_a_restarted_agent_finds_its_calls_again",
            f"{_CALLS}::test_calls_that_jonny5_let_through_are_taken_in"),
    "B11": (f"{_WALK}[1.6 no rate]", f"{_WALK}[1.6 no rate, but trunks]"),
    "B12": (f"{_DECISIONS}::test_without_the_store_only_what_must_passes",),
    "B13": ("unit/test_kazoo_import_rates.py::test_costs_are_kazoos_with_its_rounding",
            f"{_ORDER}::test_rates_are_told_in_units_and_balances_as_booleans"),
    "B14": (f"{_DECISIONS}::test_each_leg_pays_at_its_own_decks_price",),
    "B15": ("integration/test_kazoo_midcall.py::test_a_call_ends_before_its_money_does",
            "integration/test_kazoo_midcall.py::test_only_calls_that_cannot_be_paid_are_cut"),
    "B16": (f"{_ORDER}::test_low_balances_and_recharges_are_told_to_kazoos_notifications",
            "integration/test_recharges.py"
            "::test_failures_wait_twice_as_long_each_time_and_block_no_day"),
    "B17": ("integration/test_kazoo_many_channels.py"
            "::test_a_decision_is_the_same_work_among_many_live_channels",),
    "B18": (f"{_WALK}[1.3 denied calls count nowhere]",),
    "B19": ("unit/test_kazoo_import_limits.py::test_what_is_not_known_here_is_remarked",),
    "B20": ("integration/test_history_queries.py::test_every_statement_adds_up_and_carries_over",
            "integration/test_history_queries.py::test_a_closed_month_stays_as_it_is"),
    "B21": (f"{_WALK}[1.11 neither credit nor trunks]",
            f"{_WALK}[1.11 trunks without credit]"),
    "B22": (_WALK, "unit/test_kazoo_messages.py::test_what_is_written_is_the_example_again"),
    "B23": ("unit/test_kazoo_import_rates.py::test_bad_rates_name_place_and_field_and_block_"
            "their_prefix",
            "integration/test_kazoo_cli.py::test_rates_make_a_retail_and_a_wholesale_deck"),
    "B24": (f"{_WALK}[1.3 numbers]",),
    "B25": (f"{_ORDER}::test_rates_are_told_in_units_and_balances_as_booleans",),
    "B26": (f"{_WALK}[1.3 numbers]", f"{_DECISIONS}::test_calls_of_one_number_are_limited"),
    "B27": (f"{_WALK}[1.3 resource-consuming 1 of 5]",),
    "B28": (f"{_WALK}[1.2 its own reseller]",),
    "B29": (f"{_WALK}[1.2 soft, but there is credit]",),
    "B30": (f"{_WALK}[1.1 words of the question]",),
    "B31": (f"{_ORDER}::test_a_question_asked_again_is_one_call_and_one_bill",
            f"{_WALK}[1.1 a reseller that is another account's]"),
    "B32": (f"{_DECISIONS}::test_balances_count_what_calls_have_used",),
}  # fmt: skip


def functions_of(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_every_defect_has_its_tests() -> None:
    rows = re.findall(r"^\| (B\d+) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert list(DEFECTS) == rows
    cases = {case.name for case in CASES}
    for names in DEFECTS.values():
        assert names
        for name in names:
            path, _, test = name.partition("::")
            function, _, case = test.partition("[")
            assert function in functions_of(TESTS / path), name
            assert not case or case.removesuffix("]") in cases, name


def test_every_case_has_a_name_of_its_own() -> None:
    # Accounts and calls of a row are named after it.
    assert len({case.name for case in CASES}) == len(CASES)
