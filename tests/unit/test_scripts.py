"""Loading of the Lua scripts, and the records that Python and Lua share."""

from __future__ import annotations

import struct

import pytest

from authz.errors import InvariantError
from authz.reasons import CallClass
from authz.store.layouts import ACCOUNT_STATE, CALL_HEAD, LAYOUTS, LIMITS, NONE
from authz.store.records import (
    CallTail,
    ledger_strings,
    pack_strings,
    unpack_call,
    unpack_strings,
)
from authz.store.replies import read_answer
from authz.store.scripts import flatten, load_scripts, script_for
from authz.store.shortcuts import expand_shortcut


def test_every_script_is_flat_and_has_numbers_for_names():
    scripts = load_scripts()
    verbs = {script.name for script in scripts.values()}
    assert {"authorize", "reserve", "settle", "book", "orphan", "release", "post"} <= verbs
    for script in scripts.values():
        assert "@include" not in script.source
        assert "REASON_" not in script.source
        assert script.source.isascii()


def test_the_name_says_the_number_of_keys():
    assert script_for("post", 2).number_of_keys == 10
    assert [script_for("authorize", legs).number_of_keys for legs in (1, 4)] == [7, 10]


def test_an_include_is_taken_once():
    source = flatten('--- @include "time"\n--- @include "time"\nreturn now_seconds\n', "twice")
    assert source.count("local now_seconds") == 1


def test_functions_that_nothing_calls_are_left_out():
    source = flatten(
        "local function used()\n  return 1\nend\n"
        "local function helper()\n  return 2\nend\n"
        'local function unused()\n  return helper() .. "used"\nend\n'
        'return used() .. "helper"\n',
        "script",
    )
    assert source == 'local function used()\n  return 1\nend\nreturn used() .. "helper"\n'


def test_what_is_seldom_called_is_made_only_then():
    source = flatten(
        "--- @seldom\nlocal function rare(a)\n  return helper(a)\nend\n"
        "local function often()\n  return rare(1)\nend\n"
        "return often()\n",
        "script",
    )
    assert source.startswith("local seldom\nlocal function often()\n  return seldom(")
    assert 'if name == "rare" then return rare(...) end' in source
    assert source.endswith("return often()\n")


def test_a_helper_of_seldom_functions_alone_is_seldom_too():
    source = flatten(
        "local function helper(a)\n  return a\nend\n"
        "--- @seldom\nlocal function rare(a)\n  return helper(a)\nend\n"
        "local function often()\n  return rare(1)\nend\n"
        "return often()\n",
        "script",
    )
    assert source.index("seldom = function") < source.index("local function helper")


def test_a_script_with_seldom_functions_ends_with_one_call():
    with pytest.raises(InvariantError, match="does not end with the call of one function"):
        flatten("--- @seldom\nlocal function rare()\nend\nlocal x = rare()\n", "script")


def test_a_script_with_a_shortcut_exists_for_each_length_of_a_chain():
    scripts = load_scripts()
    for verb in ("authorize", "reserve", "settle"):
        assert [scripts[f"{verb}_{legs}"].legs for legs in range(1, 5)] == [1, 2, 3, 4]
        assert len({script_for(verb, legs).sha1 for legs in range(1, 5)}) == 4
    assert script_for("post", 1) is script_for("post", 4) is scripts["post"]
    assert scripts["post"].legs is None


def test_without_a_length_a_script_has_its_rules_alone():
    text = '--- @include "time"\n--- @shortcut "settle"\nreturn now_seconds\n'
    assert "until true" in flatten(text, "script", 2)
    assert flatten(text, "script") == flatten(
        text.replace('--- @shortcut "settle"\n', ""), "script"
    )


def test_a_shortcut_that_does_not_exist_is_named():
    with pytest.raises(InvariantError, match=r"no include nowhere_shortcut\.lua: script"):
        flatten('--- @shortcut "nowhere"\n', "script", 2)


def test_a_block_and_a_list_are_repeated_for_each_leg():
    source = (
        "-- A comment.\nlocal sum = 0\n"
        "--- @each leg\nlocal hold_leg = ARGV[2 + leg] * legs\n--- @end\n"
        "return {EACH(hold_leg, 0)}\n"
    )
    assert expand_shortcut(source, "name", 2) == (
        "local sum = 0\n"
        "local hold_1 = ARGV[2 + 1] * 2\nlocal hold_2 = ARGV[2 + 2] * 2\n"
        "return {hold_1, 0, hold_2, 0}\n"
    )


def test_a_shortcut_reads_no_field_after_the_last_that_it_uses():
    source = (
        "--- @unpack tombstone as known_, each tombstone_leg as known_ from ARGV[1]\n"
        "return known_seconds\n"
    )
    assert expand_shortcut(source, "name", 2) == (
        'local known_packed_layout, known_seconds = struct.unpack(">c2i4", ARGV[1])\n'
        "return known_seconds\n"
    )
    with pytest.raises(InvariantError, match="name unpacks i8 as hold, of which it uses nothing"):
        expand_shortcut("--- @unpack i8 as hold from ARGV[1]\n", "name", 2)


def test_a_record_in_a_shortcut_has_a_name():
    with pytest.raises(InvariantError, match="name has a record without a name: tombstone"):
        expand_shortcut('return PACKED("tombstone")\n', "name", 2)


def test_a_shortcut_packs_nothing_that_it_has_not():
    with pytest.raises(InvariantError, match="name packs made_layout, which nothing has set"):
        expand_shortcut('local made_legs = 1\nreturn PACKED("tombstone as made_")\n', "name", 1)


async def test_a_shortcut_leaves_neighbours_that_it_does_not_name_packed(any_store):
    source = expand_shortcut(
        "--- @unpack account_state as account_ from ARGV[1]\n"
        "account_held, account_day = account_held + 100, account_day + 100\n"
        "local marks = struct.unpack('>i8', account_packed_day_spend)\n"
        'return {PACKED("account_state as account_"), marks}\n',
        "name",
        1,
    )
    assert '">c32i8c96i8c128"' in source
    state = {name: place for place, name in enumerate(ACCOUNT_STATE.names)}
    packed, marks = await any_store.execute("EVAL", source, 0, ACCOUNT_STATE.pack(**state))
    changed = {**state, "held": state["held"] + 100, "day": state["day"] + 100}
    assert ACCOUNT_STATE.unpack(packed)._asdict() == changed
    assert marks == state["day_spend"]


@pytest.mark.parametrize("call_class", CallClass)
async def test_a_shortcut_counts_calls_of_a_class_or_leaves_the_block(any_store, call_class):
    source = expand_shortcut(
        "repeat\n"
        "--- @counter of tonumber(ARGV[2])\n"
        "--- @unpack account_state as account_ from ARGV[1]\n"
        "if counter_is_first then account_counters_first = account_counters_first + 100\n"
        "else account_counters_second = account_counters_second + 100 end\n"
        'return PACKED("account_state as account_")\n'
        "until true\n",
        "name",
        1,
    )
    state = {name: place for place, name in enumerate(ACCOUNT_STATE.names)}
    packed = await any_store.execute(
        "EVAL", source, 0, ACCOUNT_STATE.pack(**state), int(call_class)
    )
    if call_class in (CallClass.NATIONAL, CallClass.INTERNATIONAL, CallClass.TOLLFREE):
        counter = f"calls_{call_class.label}"
        changed = {**state, counter: state[counter] + 100}
        assert ACCOUNT_STATE.unpack(packed)._asdict() == changed
    else:
        assert packed is None


async def test_a_shortcut_answers_integers_as_one_string(any_store):
    source = expand_shortcut(
        "--- @each leg\nlocal cost_leg = leg - 2\n--- @end\n"
        "return ANSWER(2000000000000000, 0, EACH(cost_leg, leg))\n",
        "name",
        3,
    )
    answer = await any_store.execute("EVAL", source, 0)
    assert read_answer(answer) == [2 * 10**15, 0, -1, 1, 0, 2, 1, 3]


def test_an_answer_that_is_no_string_is_left_alone():
    assert read_answer([1, b"record"]) == [1, b"record"]
    with pytest.raises(InvariantError, match="9 bytes, which are no integers"):
        read_answer(b"123456789")


async def test_a_shortcut_packs_what_it_unpacks(any_store):
    source = expand_shortcut(
        "--- @unpack account_state as account_, each i8 as hold, c3 as tail from ARGV[1]\n"
        'return PACKED("account_state as account_, each i8 as hold, text as tail")\n',
        "name",
        3,
    )
    state = ACCOUNT_STATE.pack(**{name: place for place, name in enumerate(ACCOUNT_STATE.names)})
    packed = state + struct.pack(">qqq", 1, -2, 3) + b"end"
    assert await any_store.execute("EVAL", source, 0, packed) == packed


def test_a_record_is_packed_whole_or_not_at_all():
    with pytest.raises(InvariantError, match="script packs a tombstone without some"):
        flatten("--- @layout tombstone\nreturn pack_tombstone({legs = 1})\n", "script")


async def test_records_are_packed_and_unpacked_in_place(any_store):
    source = flatten(
        "--- @layout tombstone\nlocal function echo(packed)\n"
        "  local known = unpack_tombstone(packed)\n"
        "  return pack_tombstone({layout = known.layout, legs = known.legs,\n"
        "    seconds = known.seconds})\nend\nreturn echo(ARGV[1])\n",
        "script",
    )
    assert "unpack_tombstone" not in source
    packed = LAYOUTS["tombstone"].pack(layout=1, legs=2, seconds=-3)
    assert await any_store.execute("EVAL", source, 0, packed) == packed


async def test_lazy_fields_are_carried_along_and_opened_when_asked_for(any_store):
    names = list(ACCOUNT_STATE.names)
    packed = ACCOUNT_STATE.pack(**{name: place for place, name in enumerate(names)})
    source = (
        f"{ACCOUNT_STATE.lua_codec()}\n"
        "local state = unpack_account_state(ARGV[1])\n"
        "local carried = pack_account_state(state)\n"
        "assert(state.low_at == nil)\n"
        "open_account_state(state)\n"
        "state.low_at = state.low_at + 100\n"
        "return {carried, pack_account_state(state)}"
    )
    carried, changed = await any_store.execute("EVAL", source, 0, packed)
    assert carried == packed
    expected = ACCOUNT_STATE.unpack(packed)._replace(low_at=names.index("low_at") + 100)
    assert ACCOUNT_STATE.unpack(changed) == expected


def test_a_missing_include_names_the_way_to_it():
    with pytest.raises(InvariantError, match=r"no include nowhere\.lua: broken"):
        flatten('--- @include "nowhere"', "broken")


def test_a_missing_layout_is_named():
    with pytest.raises(InvariantError, match="no layout nothing"):
        flatten("--- @layout nothing", "broken")


def test_a_constant_that_does_not_exist_is_an_error():
    with pytest.raises(InvariantError, match="names REASON_NONSENSE"):
        flatten("return REASON_NONSENSE", "broken")


def test_a_negative_constant_is_no_unary_minus():
    assert flatten("return OUTCOME_SHORT", "script") == "return (0 - 3)\n"


def test_a_layout_packs_what_it_unpacks():
    packed = ACCOUNT_STATE.pack(balance=-1, held=2, month=24_000)
    state = ACCOUNT_STATE.unpack(packed)
    assert (state.balance, state.held, state.month, state.calls) == (-1, 2, 24_000, 0)
    assert len(packed) == ACCOUNT_STATE.size


def test_a_layout_refuses_a_field_it_does_not_have():
    with pytest.raises(TypeError, match=r"pack_limits\(\) got an .* 'balance'"):
        LIMITS.pack(balance=1)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
async def test_lua_reads_and_writes_each_layout_as_python_does(any_store, layout):
    values = {}
    for place, (name, code) in enumerate(layout.fields):
        values[name] = {
            "i64": NONE + place, "i56": place - 2**52, "i32": -(2**31) + place,
            "u40": 2**40 - 1 - place, "u32": 2**32 - 1 - place, "u16": 65_000 + place,
            "u8": 255 - place, "digest8": b"digest-8",
        }[code]  # fmt: skip
    packed = layout.pack(**values)
    source = (
        f"{layout.lua_codec()}\nreturn pack_{layout.name}(unpack_{layout.name}(ARGV[1])) .. ARGV[2]"
    )
    echoed = await any_store.execute("EVAL", source, 0, packed, b"end")
    assert echoed == packed + b"end"
    assert layout.unpack(packed)._asdict() == values


def test_strings_survive_and_are_cut_at_a_character():
    assert unpack_strings(pack_strings(["", "acme", "+1415"])) == ["", "acme", "+1415"]
    (cut,) = unpack_strings(pack_strings(["é" * 200]))
    assert cut == "é" * 127


def test_a_text_that_runs_past_its_record_is_refused():
    with pytest.raises(InvariantError, match="past its end"):
        unpack_strings(b"\x05abc")


def test_a_tail_keeps_number_switch_and_rates():
    tail = CallTail("+14155550100", "4155550100", "fs1", (b"rate", b""))
    assert CallTail.unpack(tail.pack(), 2) == tail
    same = CallTail("911", "911", "", ())
    assert CallTail.unpack(same.pack(), 0) == same


def test_half_a_call_record_is_refused():
    whole = CALL_HEAD.pack(layout=1, state=1, legs=2)
    with pytest.raises(InvariantError, match="cannot be read"):
        unpack_call(whole)


def test_ledger_strings_hold_accounts_then_three_texts():
    packed = ledger_strings(["leaf", "root"], "call-1", "+1415", "text")
    assert unpack_strings(packed) == ["leaf", "root", "call-1", "+1415", "text"]
