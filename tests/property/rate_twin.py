"""The price of a call by the rule as it is written: one increment after the other, in fractions.

Slow and plain on purpose. It shares nothing with `authz_ext.rating` but the words.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from math import ceil, floor
from zoneinfo import ZoneInfo

from authz_ext.rating import Rate, Tier, Window

NANOS_PER_MICRO = 1_000
HALF = Fraction(1, 2)


@dataclass(frozen=True)
class TierTwin:
    """One tier in plain integers."""

    from_second: int
    price_nanos: int
    per_seconds: int
    increment_seconds: int


@dataclass(frozen=True)
class WindowTwin:
    """One window in plain integers; the base of a rate is one as well, and its days are 0."""

    tiers: tuple[TierTwin, ...]
    connect_fee: int = 0
    free_seconds: int = 0
    days: int = 0
    start_minute: int = 0
    end_minute: int = 1440

    def is_open(self, wall: datetime) -> bool:
        """Say whether the window covers that time of the week by the wall clock."""
        minute = wall.hour * 60 + wall.minute
        today = bool(self.days >> wall.weekday() & 1)
        yesterday = bool(self.days >> (wall.weekday() - 1) % 7 & 1)
        if self.start_minute < self.end_minute:
            return today and self.start_minute <= minute < self.end_minute
        return (today and minute >= self.start_minute) or (yesterday and minute < self.end_minute)

    def tier_at(self, second: int) -> TierTwin:
        """Return the tier in force at that second of the call."""
        return [tier for tier in self.tiers if tier.from_second <= second][-1]

    def objects(self) -> tuple[Tier, ...]:
        """Return the tiers as the rating module wants them."""
        return tuple(
            Tier(tier.from_second, tier.price_nanos, tier.per_seconds, tier.increment_seconds)
            for tier in self.tiers
        )


@dataclass(frozen=True)
class RateTwin:
    """A rate in plain integers."""

    base: WindowTwin
    windows: tuple[WindowTwin, ...] = ()
    timezone: str = "UTC"
    rounding_mode: str = "half_up"
    rounding_decimals: int = 6
    max_cost: int | None = None
    max_cost_action: str = "free"
    discount_basis_points: int = 0

    def rate(self) -> Rate:
        """Return the same rate as the rating module knows it."""
        return Rate(
            tiers=self.base.objects(),
            connect_fee=self.base.connect_fee,
            free_seconds=self.base.free_seconds,
            rounding_mode=self.rounding_mode,
            rounding_decimals=self.rounding_decimals,
            max_cost=self.max_cost,
            max_cost_action=self.max_cost_action,
            windows=tuple(
                Window(
                    window.days,
                    window.start_minute,
                    window.end_minute,
                    window.objects(),
                    window.connect_fee,
                    window.free_seconds,
                )
                for window in self.windows
            ),
            timezone=self.timezone,
            discount_basis_points=self.discount_basis_points,
        )

    def window_at(self, moment: int) -> WindowTwin:
        """Return the first window open at that Unix second, or the base."""
        wall = datetime.fromtimestamp(moment, ZoneInfo(self.timezone))
        return next((window for window in self.windows if window.is_open(wall)), self.base)

    def increments(
        self, seconds: int, answered_at: int, only: WindowTwin | None = None
    ) -> list[tuple[int, TierTwin]]:
        """Return (start, tier) of every increment of the call; `only` prices all of it."""
        found = []
        second = 0
        while second < seconds:
            window = only or self.window_at(answered_at + second)
            tier = window.tier_at(second)
            found.append((second, tier))
            second += tier.increment_seconds
        return found

    def cost(self, seconds: int, answered_at: int = 0, only: WindowTwin | None = None) -> int:
        """Return the micros of a call, summed exactly, rounded once, less the discount."""
        answered_in = only or self.window_at(answered_at)
        if seconds == 0 or seconds <= answered_in.free_seconds:
            return 0
        micros = Fraction(answered_in.connect_fee)
        # As many times the same charge, not one by one: adding fractions is what takes long.
        for tier, times in Counter(
            one for _, one in self.increments(seconds, answered_at, only)
        ).items():
            nanos = Fraction(tier.price_nanos * tier.increment_seconds, tier.per_seconds)
            micros += times * nanos / NANOS_PER_MICRO
        cost = self.round(micros)
        cost -= self.discount_of(cost)
        if self.max_cost is not None and self.max_cost_action == "free":
            return min(cost, self.max_cost)
        return cost

    def discount_of(self, cost: int) -> int:
        """Return the part of a rounded cost that is not paid, rounded down to the decimals."""
        quantum: int = 10 ** (6 - self.rounding_decimals)
        return floor(Fraction(cost * self.discount_basis_points, 10_000 * quantum)) * quantum

    def round(self, micros: Fraction) -> int:
        """Round to the rate's decimals."""
        quantum: int = 10 ** (6 - self.rounding_decimals)
        quanta = micros / quantum
        if self.rounding_mode == "up":
            return ceil(quanta) * quantum
        if self.rounding_mode == "down":
            return floor(quanta) * quantum
        return floor(quanta + HALF) * quantum

    def hold(self, seconds: int, now: int, ring_seconds: int) -> int:
        """Return the dearest cost in any window open at some second of the ringing."""
        open_windows = {self.window_at(now + second) for second in range(ring_seconds + 1)}
        return max(self.cost(seconds, now, only=window) for window in open_windows)
