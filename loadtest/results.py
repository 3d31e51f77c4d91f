"""What a load test was asked for and what it has found, as one record and as JSON."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from authz.engine.audit import AuditReport
from loadtest.daemon import Daemon
from loadtest.environment import Environment
from loadtest.figures import PhaseFigures, Run
from loadtest.scenario import Scenario
from loadtest.stalls import Stalls
from loadtest.steadiness import Steadiness


class Options(Struct, frozen=True, kw_only=True):
    """How to run a scenario. `daemon` None starts an own one."""

    generators: int = 2
    runs: int = 1
    daemon: Daemon | None = None
    over_unix: bool = False
    measures_floor: bool = True
    #: Find out what the machine did while the slowest requests waited.
    watches_stalls: bool = False
    seed: str = ""
    #: Settings of an own daemon that go over the scenario's.
    settings: dict[str, str | int | bool] = {}  # msgspec copies it


class Result(Struct, frozen=True, kw_only=True):
    """What a load test has found. `phases` are the medians of the runs."""

    scenario: Scenario
    options: Options
    environment: Environment
    started_at: str
    #: Requests per second that the daemon answers at most, where the scenario asks for it.
    capacity_per_second: float | None
    #: The same generators at the same rate against an echo server.
    floor: PhaseFigures | None
    #: CPU time of the generators for one request, in microseconds.
    generator_us_per_request: float
    phases: tuple[PhaseFigures, ...]
    runs: tuple[Run, ...]
    floor_run: Run | None
    audit: AuditReport
    #: How steady the machine was before the load, and what it did in the stalls of all runs.
    steadiness: Steadiness | None = None
    stalls: Stalls | None = None

    @property
    def is_clean(self) -> bool:
        """Whether every invariant holds and nothing failed that should not."""
        failed = any(phase.errors for phase in self.phases)
        return not self.audit.findings and (self.scenario.errors_expected or not failed)


def as_json(result: Result) -> bytes:
    """Return a result as JSON, with the points of its curves instead of the histograms."""
    words = {
        name: msgspec.to_builtins(getattr(result, name))
        for name in Result.__struct_fields__
        if name not in ("options", "runs", "floor_run")
    }
    words["options"] = msgspec.to_builtins(msgspec.structs.replace(result.options, daemon=None))
    if result.options.daemon is not None:
        # The URLs of store and archive may hold passwords.
        words["options"]["daemon"] = {"target": result.options.daemon.target.text}
    words["runs"] = [
        {"phases": one.phases, "timeline": one.timeline, "curves": _curves(one)}
        for one in result.runs
    ]
    return msgspec.json.format(msgspec.json.encode(words), indent=1)


def _curves(run: Run) -> list[dict[str, object]]:
    return [
        {
            "phase": phase,
            "operation": operation,
            "points_ms": [
                (round(fraction, 6), round(value / 1e6, 4)) for fraction, value in histogram.curve()
            ],
        }
        for (phase, operation), histogram in run.histograms.items()
    ]
