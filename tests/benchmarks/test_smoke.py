"""The benchmarks still work: each with tiny sizes, and what it measures does what it should."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
from audit_helper import assert_clean_audit
from servers import Server

from authz.store.client import StoreClient
from authz.store.keys import BUCKETS
from benchmarks import (
    archive_drain,
    archive_stalls,
    deck_effect,
    freeswitch_load,
    idle_cost,
    kazoo_channels,
    live_calls,
    log_rewrite,
    script_cost,
    store_size,
    table_pauses,
    waking,
    worker_cost,
)
from benchmarks.compare import __main__ as compare
from benchmarks.compare import postgres
from benchmarks.minimal import MinimalPair
from benchmarks.pipeline import Pipeline
from benchmarks.tries import make_numbers, make_prefixes, makers


async def test_loaded_live_calls_pass_the_audit(store_server: Server, store: StoreClient) -> None:
    await live_calls.load_live_calls(store_server.url, 3 * BUCKETS + 1)
    report = await assert_clean_audit(store)
    assert report.calls == 3 * BUCKETS + 1


async def test_a_ledger_of_the_archive_s_benchmark_is_drained(
    store_server: Server, tmp_path: Path
) -> None:
    rates = await archive_drain.measure(store_server.url, None, tmp_path, entries=3)
    assert len(rates) == 3


def test_probes_wait_for_an_archive_that_is_filled() -> None:
    told = archive_stalls.measure(archive_stalls.OFFICE, 200, 0.3, warm_up_seconds=1)
    assert len(told["wake"]) > 10
    assert len(told["ping"]) > 10
    assert min(told["ping"]) > 0
    assert "wake p50" in archive_stalls.describe("office", [told])


def test_a_sleeper_is_watched_beside_a_computing_process() -> None:
    setting = waking.SETTINGS[-1]
    late_ns = waking.measure(setting, 0.3)
    assert len(late_ns) > 10
    assert waking.describe(setting, [late_ns]).startswith("batch, nice, long slice (the office)")


def test_the_minimal_pair_debits_two_accounts_once(store_server: Server) -> None:
    with Pipeline(store_server.url) as store:
        pair = MinimalPair(store)
        before = pair.balances(store)
        authorize = pair.commands("authorize", ["a"])
        settle = pair.commands("settle", ["a"])
        replies = store.run([*authorize, *authorize, *settle, *settle])
        assert [reply[0] for reply in replies] == [1, 2, 1, 2]
        assert pair.commands("settle", ["b"]) != settle
        assert store.run(pair.commands("settle", ["b"])) == [[0]]
        after = pair.balances(store)
    assert [old - new for old, new in zip(before, after, strict=True)] == [10_000, 4_500]


def test_scripts_are_measured_against_their_goals() -> None:
    costs = script_cost.measure(calls=5, rounds=1, live_calls=BUCKETS, server=None)
    text = script_cost.report(costs)
    assert text.count("≤ 1.8") == 2
    assert "settle, with live calls / without" in script_cost.as_json(costs)


def test_sizes_are_of_whole_calls() -> None:
    sizes = {size.what: size for size in store_size.measure(live_calls=640, settled_calls=200)}
    live = sizes["live call of 2 legs, with its lease"]
    # A record of two legs has 118 bytes before its tail, its two names as many again.
    assert live.bytes > 200
    assert sizes["closed call"].count >= 200
    assert "ledger entry of 2 legs" in store_size.report(list(sizes.values()))


def test_the_comparison_leads_calls_through_every_subject(capsys) -> None:
    arguments = ["--calls", "20", "--rounds", "1", "--shape", "2x2"]
    assert compare.main(arguments) == 0
    text = capsys.readouterr().out
    assert "authz, one hook worker, 2 connections × 2 pipelined" in text
    missing = postgres.obstacle()
    expected = "synchronous_commit on" if missing is None else f"left out: PostgreSQL ({missing})"
    assert expected in text


def test_every_trie_finds_the_same_prefixes() -> None:
    rng = random.Random(5)
    prefixes = make_prefixes(500, rng)
    numbers = make_numbers(prefixes, 200, rng)
    answers = {name: list(map(make(prefixes), numbers)) for name, make in makers().items()}
    assert set(map(tuple, answers.values())) == {tuple(answers["authz"])}


async def test_every_kind_of_request_is_measured_in_a_worker(
    store_server: Server, store: StoreClient, tmp_path: Path
) -> None:
    await worker_cost.publish_decks(store_server.url)
    costs = await worker_cost.measure(store_server.url, tmp_path, worker_cost.Clock(), calls=16)
    assert len(costs) == len(worker_cost.SHAPES) * len(worker_cost.KINDS)
    assert (await assert_clean_audit(store)).calls == 0


async def test_a_new_deck_is_seen_to_take_effect(tmp_path: Path) -> None:
    effect = await deck_effect.measure(
        100, tmp_path, before_seconds=1, publications=2, rate=100, watches_stalls=True
    )
    assert effect.requests > 0
    assert effect.failed == effect.audit_findings == 0
    assert len(effect.publications) == 2
    assert all(min(msgspec.structs.astuple(one)) > 0 for one in effect.publications)
    assert effect.stalls is not None
    assert effect.import_stalls is not None
    assert "longest during a publication" in deck_effect.report(effect)


def test_rewrites_of_a_log_are_measured_in_turns(tmp_path: Path) -> None:
    found = log_rewrite.measure(megabytes=10, rewrites=1, directory=tmp_path)
    assert [len(rewrites) for rewrites in found.values()] == [1, 1]
    assert all(min(one) > 0 for rewrites in found.values() for one in rewrites)
    assert log_rewrite.report(found).count("at its end") == 2


async def test_the_processes_of_an_idle_daemon_are_told_apart() -> None:
    shares = await idle_cost.measure(seconds=1, settle_seconds=0)
    assert {"hook workers", "office", "store"} <= set(shares)


async def test_kazoo_decisions_are_measured_among_live_channels(
    store_server: Server, store: StoreClient, tmp_path: Path
) -> None:
    figures = await kazoo_channels.measure(store_server.url, tmp_path, [0, 30], decisions=10)
    assert [one.channels for one in figures] == [0, 30]
    assert "30" in kazoo_channels.report(figures)
    # Ten at the first level, twenty more up to the second, and ten there.
    assert (await assert_clean_audit(store)).calls == 40


async def test_waiting_calls_of_a_switch_are_all_decided_and_settled() -> None:
    load = await freeswitch_load.measure(rate=20, seconds=1)
    assert (load.calls, load.released) == (20, 20)
    assert load.refused == load.lost == load.audit_findings == 0
    assert min(load.release_ms) > 0
    assert {"agents", "simulated switch", "store"} <= set(load.cpu_ms_per_call)
    assert "20 released, 0 refused, 0 lost" in freeswitch_load.report(load)


def test_pauses_of_tables_are_told_side_by_side() -> None:
    found = [table_pauses.measure(name, 300) for name in ("dict", "OrderedDict", "Latest")]
    assert all(0 < one.mean_us <= max(one.growing_max_us, one.steady_max_us) for one in found)
    gates = {300: table_pauses.measure_gate(300)}
    assert gates[300] > 0
    told = table_pauses.report(found, gates).splitlines()
    assert [line.split()[0] for line in told[1:]] == ["dict", "OrderedDict", "Latest", "gate,"]
