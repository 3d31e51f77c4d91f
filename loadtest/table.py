"""The result of a load test on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from authz.engine.audit import AuditReport
from loadtest.figures import Latency, PhaseFigures
from loadtest.results import Result
from loadtest.stall_table import show_stalls

_PIPE_COLUMNS: Final = 160
_FINDINGS_MAX: Final = 20
LATENCY_COLUMNS: Final = ("count", "p50", "p90", "p99", "p99.9", "max", "mean")


def show(result: Result) -> None:
    """Print everything that a reader of figures needs, to standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_COLUMNS)
    console.print(Text(f"\n{result.scenario.title} ({result.scenario.name})", style="bold"))
    console.print(Text(setting(result)))
    console.print(latency_table(result))
    for phase in result.phases:
        _show_phase(console, phase)
    _show_generators(console, result)
    show_stalls(console, result.steadiness, result.stalls)
    _show_audit(console, result.audit)


def setting(result: Result) -> str:
    """Return in two lines what was measured on what."""
    here, options = result.environment, result.options
    transport = "a Unix socket" if options.over_unix else "TCP"
    if options.daemon is not None:
        transport = options.daemon.target.text
    commit = f" ({here.commit})" if here.commit else ""
    runs = "1 run" if options.runs == 1 else f"median of {options.runs} runs"
    return (
        f"authz {here.authz}{commit}, Python {here.python}, {here.store} with appendfsync "
        f"{here.appendfsync}, {here.cores} cores of {here.processor}, Linux {here.kernel}\n"
        f"{options.generators} generators over {transport}, {result.scenario.connections} "
        f"connections, {runs}; latency in ms, from when a request was due to its answer"
    )


def latency_table(result: Result) -> Table:
    """Return the table of latencies: a row for each phase and operation, and for the floor."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("phase", "operation"):
        table.add_column(name)
    for name in LATENCY_COLUMNS:
        table.add_column(name, justify="right")
    for phase in result.phases:
        for operation, latency in phase.operations.items():
            table.add_row(phase.name, operation, *latency_cells(latency))
    if result.floor is not None:
        for operation, latency in result.floor.operations.items():
            cells = ("floor (echo)", operation, *latency_cells(latency))
            table.add_row(*cells, style="dim")
    return table


def latency_cells(latency: Latency) -> tuple[str, ...]:
    """Return the cells under LATENCY_COLUMNS."""
    values = (
        latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms, latency.max_ms,
        latency.mean_ms,
    )  # fmt: skip
    return (f"{latency.count:,}", *(f"{value:.3f}" for value in values))


def facts(phase: PhaseFigures) -> list[tuple[str, str]]:
    """Return what else is to be said of a phase, as (name, text)."""
    said = [
        (
            "rate",
            f"offered {phase.offered_per_second:,.0f}/s (planned "
            f"{phase.planned_per_second:,.0f}), achieved {phase.achieved_per_second:,.0f}/s",
        ),
        ("denials", counts(phase.denials)),
        ("errors", counts(phase.errors)),
    ]
    if phase.emergencies:
        said.append(("emergency", f"{phase.emergencies_allowed} of {phase.emergencies} allowed"))
    said.append(("CPU, of a core", shares(phase.cpu)))
    return said


def counts(numbers: Mapping[str, int]) -> str:
    """Return counts by name as one line."""
    return ", ".join(f"{name} {count:,}" for name, count in numbers.items()) or "none"


def shares(cpu: Mapping[str, float]) -> str:
    """Return shares of a core by role as one line."""
    return ", ".join(f"{role} {share:.0%}" for role, share in cpu.items()) or "not known"


def _show_phase(console: Console, phase: PhaseFigures) -> None:
    console.print(Text(f"{phase.name} ({phase.seconds:g} s)", style="bold"))
    for name, text in facts(phase):
        style = "red" if name == "errors" and phase.errors else ""
        console.print(Text(f"  {name:<15} {text}", style=style))


def _show_generators(console: Console, result: Result) -> None:
    lag = result.phases[0].lag
    console.print(
        Text(
            f"generators: {result.generator_us_per_request:.0f} µs of CPU a request; late by "
            f"p50 {lag.p50_ms:.3f}, p99 {lag.p99_ms:.3f}, max {lag.max_ms:.3f} ms (contained in "
            "every latency)"
        )
    )
    if result.capacity_per_second is not None:
        capacity = result.capacity_per_second
        console.print(Text(f"capacity: {capacity:,.0f} requests/s beside these generators"))


def _show_audit(console: Console, report: AuditReport) -> None:
    style = "red" if report.findings else "green"
    console.print(Text(audit_line(report), style=style))
    for finding in report.findings[:_FINDINGS_MAX]:
        console.print(
            Text(
                f"  {finding.account or 'bucket ' + str(finding.bucket)}: {finding.invariant}: "
                f"expected {finding.expected}, found {finding.found}"
            )
        )


def audit_line(report: AuditReport) -> str:
    """Return what the audit says, in one line."""
    return (
        f"audit: {len(report.findings)} findings in {report.accounts:,} accounts, "
        f"{report.calls:,} open calls, {report.entries:,} ledger entries"
    )
