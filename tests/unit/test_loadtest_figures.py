"""From measurements to figures: phases, seconds, outcomes, medians, and the page they go to."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from authz.engine.audit import AuditReport, Finding
from loadtest import results, scenario
from loadtest.chart import Axis, even_axis, tens_axis
from loadtest.environment import Environment
from loadtest.figures import PhaseFigures, Run, Span, median_of, run_figures
from loadtest.fleet import Collected
from loadtest.plan import AUTHORIZE, EMERGENCY, ERROR_PREFIX, OK, SETTLE
from loadtest.recorder import Recorder
from loadtest.report import render
from loadtest.results import Options, Result
from loadtest.schedule import NANOS_PER_SECOND
from loadtest.stalls import Stalls, Use
from loadtest.steadiness import Steadiness
from loadtest.table import show

SPANS = [
    Span("warm-up", 0, 1, 2, is_warmup=True),
    Span("normal", 1, 2, 2, is_warmup=False),
    Span("overload", 3, 1, 4, is_warmup=False),
]
MS = 1_000_000
VOID_TAGS = {"meta", "br", "line", "rect"}


def collect(*rows: tuple[int, str, float, float]) -> Collected:
    """Return what a generator says of (operation, outcome, due second, latency in ms)."""
    recorder = Recorder()
    collected = Collected()
    collected.start_ns = 5 * NANOS_PER_SECOND
    for operation, outcome, due_seconds, latency_ms in rows:
        due_ns = collected.start_ns + int(due_seconds * NANOS_PER_SECOND)
        recorder.record(operation, outcome, due_ns, due_ns + MS, due_ns + int(latency_ms * MS))
    collected.add(recorder.take(0, 0, "ended"))
    return collected


def one_run(latency_ms: float = 4, outcome: str = OK) -> Run:
    rows = [
        (AUTHORIZE, OK, 0.5, 900),
        (AUTHORIZE, OK, 1.0, 2),
        (AUTHORIZE, outcome, 1.5, latency_ms),
        (SETTLE, OK, 2.9, 8),
        (EMERGENCY, OK, 3.1, 3),
        (AUTHORIZE, "overloaded", 3.2, 500),
        (SETTLE, f"{ERROR_PREFIX}503 overloaded", 3.8, 600),
        (SETTLE, OK, 4.0, 1),
    ]
    return run_figures(collect(*rows), SPANS, {"normal": {"store": 0.3}})


def test_requests_count_in_the_phase_in_which_they_were_due() -> None:
    normal, overload = one_run().phases

    assert (normal.name, normal.offered_per_second) == ("normal", 1.5)
    assert normal.operations["authorize"].count == 2
    assert normal.operations["authorize"].p50_ms == pytest.approx(2, rel=1e-3)
    assert normal.operations["authorize"].max_ms == 4
    assert (normal.denials, normal.errors, normal.cpu) == ({}, {}, {"store": 0.3})
    assert overload.offered_per_second == 3
    assert overload.denials == {"overloaded": 1}
    assert overload.errors == {"503 overloaded": 1}
    assert (overload.emergencies, overload.emergencies_allowed) == (1, 1)


def test_answers_count_in_the_phase_in_which_they_came() -> None:
    normal, overload = one_run().phases

    # The warm-up's answer came at 1.4 s; the last settle of the overload only after its end.
    assert normal.achieved_per_second == 2
    assert overload.achieved_per_second == 2


def test_how_late_the_generators_were_is_told() -> None:
    assert one_run().phases[0].lag.max_ms == 1


def test_each_second_has_its_row_and_what_comes_after_has_none() -> None:
    timeline = one_run().timeline

    assert [one.second for one in timeline] == [0, 1, 2, 3]
    assert [one.phase for one in timeline] == ["warm-up", "normal", "normal", "overload"]
    last = timeline[-1]
    assert (last.offered, last.allowed, last.denied, last.failed) == (3, 1, 1, 1)


def test_figures_of_several_runs_are_their_medians() -> None:
    runs = [one_run(latency) for latency in (10, 400, 20)]

    assert median_of(runs)[0].operations["authorize"].max_ms == 20
    assert median_of(runs)[1].denials == {"overloaded": 1}


def test_a_failure_of_any_run_is_not_averaged_away() -> None:
    runs = [one_run(), one_run(), one_run(outcome=f"{ERROR_PREFIX}connection lost")]

    assert median_of(runs)[0].errors == {"connection lost": 1}


def test_outcomes_of_several_generators_are_told_apart() -> None:
    collected = collect((AUTHORIZE, "no_rate", 0, 1))
    recorder = Recorder()
    recorder.record(AUTHORIZE, "overloaded", 1, 2, 3)
    recorder.record(AUTHORIZE, "no_rate", 1, 2, 3)
    collected.add(recorder.take(0, 0, "ended"))

    names = [collected.outcome_names[number] for number in collected.outcomes]
    assert names == ["no_rate", "overloaded", "no_rate"]


def a_result(*runs: Run, title: str = "Steady", findings: tuple[Finding, ...] = ()) -> Result:
    loaded = msgspec.structs.replace(scenario.load("steady"), title=title)
    return Result(
        scenario=loaded,
        options=Options(seed="s", runs=len(runs)),
        environment=Environment(
            authz="0.1.0", commit="abc", python="3.11", kernel="6", processor="<Cpu>", cores=2,
            store="valkey 9", appendonly="yes", appendfsync="everysec",
        ),
        started_at="2026-01-01T00:00:00+00:00",
        capacity_per_second=1234.5,
        floor=runs[0].phases[0],
        generator_us_per_request=20.0,
        phases=median_of(runs),
        runs=runs,
        floor_run=runs[0],
        audit=AuditReport(
            buckets=64, accounts=2, calls=0, entries=3, findings=findings, moving=(), duration_ms=1
        ),
    )  # fmt: skip


class Page(HTMLParser):
    """Checks that tags are closed in order, and gathers what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.coordinates: list[float] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID_TAGS:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                self.references.append(value or "")
            if name == "points":
                self.coordinates += map(float, re.split("[ ,]", value or ""))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = render(a_result(one_run(), one_run(9)))

    page = Page(text)
    assert page.open == []
    assert page.references == []
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert "url(" not in text
    assert "@import" not in text
    assert page.coordinates
    assert all(0 <= place <= 860 for place in page.coordinates)


def test_the_page_says_what_was_measured() -> None:
    use = Use(ran_share=0.5, waited_share=0.25, blocked_share=0, us_per_request=44)
    stalls = Stalls(9.5, 1, 0.01, {"store": use}, {"store": use}, 0, 0, ())
    watched = msgspec.structs.replace(
        a_result(one_run()), stalls=stalls, steadiness=Steadiness(0.07, 89, 1.6)
    )
    text = render(watched)

    for words in (
        "503 overloaded 1",
        "1 of 1 allowed",
        "1,234 requests/s",
        "everysec",
        "0 findings",
        "took 1.60 times as long in 7.0% of the time, for up to 89 ms",
        "more than 9.50 ms",
        "<td>store</td><td>50%</td><td>25%</td><td>0%</td><td>44</td>",
    ):
        assert words in text
    assert Page(text).open == []
    assert "Stalls" not in render(a_result(one_run()))


def test_words_from_files_cannot_become_markup() -> None:
    finding = Finding(1, "<b>", "x & y", "1", "2")

    text = render(a_result(one_run(), title="<script>alert(1)</script>", findings=(finding,)))

    assert "<script>" not in text
    assert "&lt;b&gt;: x &amp; y" in text
    assert "&lt;Cpu&gt;" in text


def test_the_table_and_the_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    result = a_result(one_run())

    show(result)
    document = msgspec.json.decode(results.as_json(result))

    shown = capsys.readouterr().out
    assert "503 overloaded 1" in shown
    assert document["phases"][1]["errors"] == {"503 overloaded": 1}
    phases = msgspec.convert(document["phases"], tuple[PhaseFigures, ...])
    assert phases == result.phases
    curve = document["runs"][0]["curves"][0]
    assert curve["points_ms"][-1] == [1.0, 4.0]


@pytest.mark.parametrize(
    ("errors_expected", "findings", "is_clean"),
    [
        (False, (), False),
        (True, (), True),
        (True, (Finding(0, "a", "balance", "1", "2"),), False),
    ],
)
def test_what_counts_as_clean(
    errors_expected: bool, findings: tuple[Finding, ...], is_clean: bool
) -> None:
    result = a_result(one_run(), findings=findings)
    changed = msgspec.structs.replace(result.scenario, errors_expected=errors_expected)

    assert msgspec.structs.replace(result, scenario=changed).is_clean is is_clean


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (tens_axis("ms", [0.3, 45]), ["0.1", "1", "10", "100"]),
        (tens_axis("ms", [0, 0]), ["1", "10"]),
        (even_axis("s", 0, 35), ["0", "5", "10", "15", "20", "25", "30", "35"]),
        (even_axis("s", 0, 0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
    ],
)
def test_axes_have_round_marks_around_all_values(axis: Axis, labels: list[str]) -> None:
    assert [tick.label for tick in axis.ticks] == labels
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == 1


def test_scenarios_lie_where_the_code_looks() -> None:
    assert Path(scenario.SCENARIOS, "steady.toml").is_file()
