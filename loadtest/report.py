"""The result of a load test as one HTML page that needs nothing but itself."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Final

from loadtest import chart
from loadtest.chart import COLOURS, Axis, Line, Tick
from loadtest.figures import PhaseFigures, Run, Second, merged_histograms
from loadtest.histogram import Histogram
from loadtest.plan import OPERATIONS
from loadtest.results import Result
from loadtest.stall_table import (
    STALL_COLUMNS,
    stall_lines,
    stall_rows,
    stalls_line,
    steadiness_line,
)
from loadtest.table import LATENCY_COLUMNS, audit_line, facts, latency_cells, setting

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #8884; }
th.name, td.name { text-align: left; } tr.floor { opacity: .65; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dt { opacity: .7; } dd { margin: 0; }
svg { width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
svg .grid { stroke: #8884; } svg .shade { fill: #8882; }
.good { color: #059669; } .bad { color: #dc2626; } .quiet { opacity: .7; white-space: pre-line; }
"""
_FINDINGS_MAX: Final = 100


def render(result: Result) -> str:
    """Return the page."""
    scenario = result.scenario
    body = [
        f"<h1>{_safe(scenario.title)}</h1>",
        f"<p>{_safe(scenario.description.strip())}</p>",
        f'<p class="quiet">{_safe(setting(result))}\n{_safe(result.started_at)}</p>',
        "<h2>Latency, ms</h2>",
        _latency_table(result),
        *(_phase(phase) for phase in result.phases),
        _generators(result),
        "<h2>Latency by percentile</h2>",
        *_percentile_charts(result),
        *_timeline_charts(result),
        *_stalls(result),
        "<h2>Audit of the books</h2>",
        _audit(result),
        "<h2>Scenario</h2>",
        _scenario_facts(result),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>authz load: {_safe(scenario.name)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _latency_table(result: Result) -> str:
    head = "".join(f"<th>{_safe(name)}</th>" for name in LATENCY_COLUMNS)
    rows = [
        f'<table><tr><th class="name">phase</th><th class="name">operation</th>{head}</tr>',
        *(row for phase in result.phases for row in _latency_rows(phase, phase.name, "")),
    ]
    if result.floor is not None:
        rows += _latency_rows(result.floor, "floor (echo)", "floor")
    return "\n".join([*rows, "</table>"])


def _latency_rows(phase: PhaseFigures, name: str, style: str) -> Iterable[str]:
    for operation, latency in phase.operations.items():
        cells = "".join(f"<td>{cell}</td>" for cell in latency_cells(latency))
        yield (
            f'<tr class="{style}"><td class="name">{_safe(name)}</td>'
            f'<td class="name">{operation}</td>{cells}</tr>'
        )


def _phase(phase: PhaseFigures) -> str:
    said = "".join(
        f'<dt>{_safe(name)}</dt><dd class="{"bad" if name == "errors" and phase.errors else ""}">'
        f"{_safe(text)}</dd>"
        for name, text in facts(phase)
    )
    return f"<h2>Phase {_safe(phase.name)} ({phase.seconds:g} s)</h2><dl>{said}</dl>"


def _generators(result: Result) -> str:
    lag = result.phases[0].lag
    text = (
        f"The generators used {result.generator_us_per_request:.0f} µs of CPU a request and were "
        f"late themselves by p50 {lag.p50_ms:.3f}, p99 {lag.p99_ms:.3f}, max {lag.max_ms:.3f} ms; "
        "that is part of every latency."
    )
    if result.capacity_per_second is not None:
        text += f" Capacity beside them: {result.capacity_per_second:,.0f} requests/s."
    return f"<p>{_safe(text)}</p>"


def _percentile_charts(result: Result) -> Iterable[str]:
    """Yield a chart for each phase: its operations, and the floor dashed."""
    histograms = merged_histograms(result.runs)
    floor = Histogram()
    if result.floor_run is not None:
        for histogram in result.floor_run.histograms.values():
            floor.merge(histogram)
    for phase in result.phases:
        lines = [
            Line(operation, _curve(histograms[phase.name, operation]), colour)
            for operation, colour in zip(OPERATIONS, COLOURS, strict=False)
            if (phase.name, operation) in histograms
        ]
        if floor.count:
            lines.append(Line("floor (echo)", _curve(floor), COLOURS[-1], is_dashed=True))
        yield f"<h3>{_safe(phase.name)}</h3>{_percentile_chart(lines)}"


def _curve(histogram: Histogram) -> list[tuple[float, float]]:
    """Return (nines, ms): 1 is the 90th percentile, 2 the 99th; the last value is the greatest."""
    last = 1 - 0.5 / histogram.count
    return [
        (-math.log10(1 - min(fraction, last)), value / 1e6) for fraction, value in histogram.curve()
    ]


def _percentile_chart(lines: Sequence[Line]) -> str:
    points = [point for line in lines for point in line.points]
    if not points:
        return "<p>Nothing was measured.</p>"
    nines = max(1, math.ceil(max(x for x, _ in points)))
    labels = ("0", "90", "99", "99.9", "99.99", "99.999", "99.9999", "99.99999")
    ticks = [Tick(number, labels[number]) for number in range(min(nines, 7) + 1)]
    x = Axis("percentile", 0, nines, ticks)
    return chart.render(lines, x, chart.tens_axis("ms", [y for _, y in points]), ())


def _timeline_charts(result: Result) -> Iterable[str]:
    """Yield the last run second by second: latency, then rates; every other phase is shaded."""
    run = result.runs[-1]
    if not run.timeline:
        return
    seconds = run.timeline
    title = "Second by second" + (f" (run {len(result.runs)})" if len(result.runs) > 1 else "")
    x = chart.even_axis("seconds since the load began", 0, seconds[-1].second + 1)
    shades = _shades(run)
    lines = [
        Line("p50", [(one.second, one.p50_ms) for one in seconds], COLOURS[0]),
        Line("p99", [(one.second, one.p99_ms) for one in seconds], COLOURS[3]),
    ]
    values = [y for line in lines for _, y in line.points]
    yield f"<h2>{_safe(title)}</h2>"
    yield chart.render(lines, x, chart.tens_axis("ms", values), shades)
    named = ("offered", "allowed", "denied", "failed")
    lines = [
        Line(name, [(one.second, getattr(one, name)) for one in seconds], colour)
        for name, colour in zip(named, COLOURS, strict=False)
    ]
    most = max(one.offered for one in seconds)
    yield chart.render(lines, x, chart.even_axis("requests/s", 0, most), shades)


def _shades(run: Run) -> Sequence[tuple[float, float]]:
    """Return where every other phase begins and ends, the warm-up first."""
    begins: list[Second] = []
    for one in run.timeline:
        if not begins or begins[-1].phase != one.phase:
            begins.append(one)
    ends = [one.second for one in begins[1:]] + [run.timeline[-1].second + 1]
    return [(one.second, end) for one, end in zip(begins, ends, strict=True)][::2]


def _stalls(result: Result) -> Iterable[str]:
    """Yield what the machine did while the slowest requests waited, if it was watched."""
    stalls = result.stalls
    if stalls is None or result.steadiness is None:
        return
    yield "<h2>Stalls</h2>"
    yield f"<p>{_safe(steadiness_line(result.steadiness))}</p><p>{_safe(stalls_line(stalls))}</p>"
    head = "".join(f"<th>{_safe(name)}</th>" for name in STALL_COLUMNS)
    rows = ("".join(f"<td>{_safe(cell)}</td>" for cell in row) for row in stall_rows(stalls))
    yield f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
    yield "<ul>" + "".join(f"<li>{_safe(line)}</li>" for line in stall_lines(stalls)) + "</ul>"


def _audit(result: Result) -> str:
    report = result.audit
    style = "bad" if report.findings else "good"
    findings = "".join(
        f"<li>{_safe(one.account or f'bucket {one.bucket}')}: {_safe(one.invariant)}: expected "
        f"{_safe(one.expected)}, found {_safe(one.found)}</li>"
        for one in report.findings[:_FINDINGS_MAX]
    )
    return f'<p class="{style}">{_safe(audit_line(report))}</p><ul>{findings}</ul>'


def _scenario_facts(result: Result) -> str:
    scenario, options = result.scenario, result.options
    accounts = ", ".join(f"{group.count:,} {group.name}" for group in scenario.accounts)
    settings = {**scenario.settings, **options.settings}
    said = {
        "accounts": accounts,
        "decks": ", ".join(
            f"{deck.name} ({len(deck.rows) + deck.prefixes:,} prefixes)" for deck in scenario.decks
        ),
        "arrivals": f"{scenario.arrivals}, seed {options.seed}",
        "speed": f"{scenario.speed:g} seconds of a call in one of the run",
        "requests per call": f"{scenario.requests_per_call:.2f} planned",
        "daemon settings": ", ".join(f"{key} {value}" for key, value in settings.items())
        or "defaults",
    }
    rows = "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(text)}</dd>" for name, text in said.items())
    return f"<dl>{rows}</dl>"


def _safe(text: str) -> str:
    return html.escape(text)
