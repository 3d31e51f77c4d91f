"""What a load test does, as its TOML file says it: decks, accounts, calls and how many of them.

Everything is checked when the file is read. Bounds keep a run finite: a load test that somebody
forgets about ends by itself.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from authz.errors import InvalidInput
from authz.model import AccountConfig, DirectionName
from authz.money import parse_amount
from authz.rating.rows import ROWS_MAX
from loadtest.errors import LoadTestError
from loadtest.schedule import Arrivals

SCENARIOS: Final = Path(__file__).with_name("scenarios")
#: Requests that one run may plan: bounds its memory (27 bytes each) and its time.
REQUESTS_MAX: Final = 5_000_000
#: How many requests the chunk of 60 s and its `extend_at` make of a call; see DESIGN, Grants.
_CHUNK_SECONDS: Final = 60
_LEAD_SECONDS: Final = 15

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,23}$(?!\n)")]
Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(gt=0, le=1_000_000)]
#: A dialled number in which every x stands for any digit.
NumberPattern = Annotated[str, Meta(pattern=r"^\+?[0-9x*#]{1,20}$(?!\n)")]


class DeckPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """A rate table. `prefixes` more rows are generated below the ones that are given.

    `rows` is prefix to price per minute; `increment_seconds` holds for all of them.
    """

    name: Name
    rows: dict[Annotated[str, Meta(pattern=r"^[0-9]{1,15}$(?!\n)")], str]
    increment_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 6
    prefixes: Annotated[int, Meta(ge=0, le=ROWS_MAX - 1_000)] = 0


class AccountGroup(Struct, frozen=True, forbid_unknown_fields=True):
    """Some accounts of one kind, spread evenly over the accounts of the group `parent`."""

    name: Name
    count: Annotated[int, Meta(ge=1, le=100_000)]
    parent: Name | None = None
    #: Paid into each account before the run.
    credit: str | None = None
    deck: Name | None = None
    #: As the admin API takes it, without parent and deck.
    config: dict[str, Any] = {}  # msgspec copies it

    def account_ids(self, scenario: str) -> list[str]:
        """Return the ids of the accounts."""
        return [f"load-{scenario}-{self.name}-{number:06}" for number in range(self.count)]


class CallPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of call. `talk_seconds` are equally likely; `unanswered` calls settle at 0."""

    accounts: Name
    to: Annotated[tuple[NumberPattern, ...], Meta(min_length=1)]
    weight: Weight = 1.0
    talk_seconds: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=7_200)], ...], Meta(min_length=1)
    ] = (60,)
    unanswered: Share = 0.0
    direction: DirectionName = "outbound"
    #: Ask for this much time at once and never extend.
    ask_seconds: Annotated[int, Meta(ge=1, le=86_400)] | None = None
    #: Reported apart: these must pass whatever the load.
    emergency: bool = False
    #: The scenario expects these to be denied, so that each is one request.
    refused: bool = False
    #: Reserves of an answered call, for planning, where chunks of 60 s do not tell (trunks).
    reserves: Annotated[float, Meta(ge=0, le=100)] | None = None

    @property
    def requests(self) -> float:
        """How many requests such a call makes on average, with a chunk of 60 s."""
        if self.refused:
            return 1.0
        reserves = self.reserves or 0.0
        if self.reserves is None and self.ask_seconds is None:
            step = _CHUNK_SECONDS - _LEAD_SECONDS
            talks = self.talk_seconds
            reserves = sum((talk - 1) // step for talk in talks) / len(talks)
        return 2.0 + (1 - self.unanswered) * reserves


class Phase(Struct, frozen=True, forbid_unknown_fields=True):
    """A time of constant load: so many requests a second, or so many times the capacity."""

    name: Name
    seconds: Annotated[float, Meta(gt=0, le=600)]
    requests_per_second: Annotated[float, Meta(gt=0, le=200_000)] | None = None
    load: Annotated[float, Meta(gt=0, le=10)] | None = None


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole scenario; see loadtest/scenarios for examples and docs/benchmarks.md."""

    title: Annotated[str, Meta(min_length=1, max_length=80)]
    description: str
    phases: Annotated[tuple[Phase, ...], Meta(min_length=1, max_length=10)]
    decks: tuple[DeckPlan, ...]
    accounts: Annotated[tuple[AccountGroup, ...], Meta(min_length=1)]
    calls: Annotated[tuple[CallPlan, ...], Meta(min_length=1)]
    warmup_seconds: Annotated[float, Meta(ge=0, le=120)] = 5.0
    #: How many seconds of a call pass in one second of the run.
    speed: Annotated[float, Meta(ge=1, le=1_000)] = 60.0
    arrivals: Arrivals = "poisson"
    connections: Annotated[int, Meta(ge=1, le=1_000)] = 16
    #: Requests in flight while the capacity is measured, over all connections.
    capacity_in_flight: Annotated[int, Meta(ge=1, le=10_000)] = 256
    capacity_seconds: Annotated[float, Meta(gt=0, le=60)] = 5.0
    #: Failed requests are part of the scenario (refused settles under overload).
    errors_expected: bool = False
    #: Settings of an own daemon, as `section.name` to value.
    settings: dict[str, str | int | bool] = {}  # msgspec copies it
    name: str = ""

    @property
    def requests_per_call(self) -> float:
        """How many requests a call of this mix makes on average."""
        weight = sum(call.weight for call in self.calls)
        return sum(call.weight * call.requests for call in self.calls) / weight

    @property
    def needs_capacity(self) -> bool:
        """Whether any phase is told in multiples of the capacity."""
        return any(phase.load is not None for phase in self.phases)

    def group(self, name: str) -> AccountGroup:
        """Return a group of accounts; KeyError without it."""
        return {group.name: group for group in self.accounts}[name]

    def deck_id(self, name: str) -> str:
        """Return the id under which a deck of this scenario is published."""
        return f"load-{self.name}-{name}"

    def with_rate(self, requests_per_second: float | None, seconds: float | None) -> Scenario:
        """Return it with another rate or duration of its one phase; LoadTestError if it has more.

        None leaves as it is.
        """
        if requests_per_second is None and seconds is None:
            return self
        if len(self.phases) > 1:
            raise LoadTestError(f"scenario {self.name} has several phases: edit a copy of its file")
        phase = self.phases[0]
        if requests_per_second is not None:
            phase = msgspec.structs.replace(phase, requests_per_second=requests_per_second)
        if seconds is not None:
            phase = msgspec.structs.replace(phase, seconds=seconds)
        changed = msgspec.structs.replace(self, phases=(phase,))
        check(changed)
        return changed


def shipped() -> list[str]:
    """Return the names of the scenarios that come with the generator."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def load(name_or_path: str) -> Scenario:
    """Read a shipped scenario by its name, or a file; LoadTestError names what is wrong."""
    path = SCENARIOS / f"{name_or_path}.toml"
    if name_or_path not in shipped():
        path = Path(name_or_path)
        if not path.is_file():
            raise LoadTestError(
                f"no scenario {name_or_path}: give a file or one of {', '.join(shipped())}"
            )
    try:
        words = tomllib.loads(path.read_text())
        scenario = msgspec.convert({**words, "name": _plain(path.stem)}, Scenario)
        check(scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, LoadTestError) as error:
        raise LoadTestError(f"{path}: {error}") from None
    return scenario


def check(scenario: Scenario) -> None:
    """Raise LoadTestError for what is allowed alone but not together."""
    _check_phases(scenario)
    _check_unique("deck", [deck.name for deck in scenario.decks])
    _check_unique("account group", [group.name for group in scenario.accounts])
    known: set[str] = set()
    for group in scenario.accounts:
        if group.parent is not None and group.parent not in known:
            raise LoadTestError(
                f"account group {group.name}: its parent {group.parent} must be a group above it"
            )
        known.add(group.name)
        _check_group(scenario, group)
    for call in scenario.calls:
        if call.accounts not in known:
            raise LoadTestError(f"calls name {call.accounts}, which is no account group")


def account_config(scenario: Scenario, group: AccountGroup, parent: str | None) -> AccountConfig:
    """Return the configuration of an account of that group; LoadTestError if it is wrong."""
    deck = None if group.deck is None else scenario.deck_id(group.deck)
    words = {**group.config, "parent": parent, "deck": deck}
    try:
        return msgspec.convert(words, AccountConfig)
    except msgspec.ValidationError as error:
        raise LoadTestError(f"account group {group.name}: config: {error}") from None


def _check_phases(scenario: Scenario) -> None:
    _check_unique("phase", [phase.name for phase in scenario.phases])
    planned = 0.0
    for phase in scenario.phases:
        if (phase.requests_per_second is None) == (phase.load is None):
            raise LoadTestError(
                f"phase {phase.name}: give requests_per_second or load, one of them"
            )
        planned += (phase.requests_per_second or 0) * phase.seconds
    if planned > REQUESTS_MAX:
        raise LoadTestError(f"the phases plan {planned:.0f} requests, more than {REQUESTS_MAX}")


def _check_group(scenario: Scenario, group: AccountGroup) -> None:
    for field in ("parent", "deck"):
        if field in group.config:
            raise LoadTestError(f"account group {group.name}: {field} stands beside config")
    if group.deck is not None and group.deck not in [deck.name for deck in scenario.decks]:
        raise LoadTestError(f"account group {group.name}: there is no deck {group.deck}")
    account_config(scenario, group, None)
    if group.credit is not None:
        try:
            amount = parse_amount(group.credit)
        except InvalidInput as error:
            raise LoadTestError(f"account group {group.name}: credit: {error.detail}") from None
        if amount <= 0:
            raise LoadTestError(f"account group {group.name}: credit must be above 0")


def _check_unique(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise LoadTestError(f"there are two {what}s called {name}")


def _plain(stem: str) -> str:
    """Return a file's name as a part of account ids."""
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:20] or "scenario"
