"""Types of the rating arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

#: Longest duration, in seconds, that anything here takes or returns.
SECONDS_MAX: int
#: Greatest price of one `per_seconds`, in nanos: 1,000,000 currency units.
PRICE_NANOS_MAX: int
#: Greatest connect fee, in micros: 1,000,000 currency units.
CONNECT_FEE_MAX: int
INCREMENT_SECONDS_MAX: int
PER_SECONDS_MAX: int
TIERS_MAX: int
WINDOWS_MAX: int
#: The greatest discount: all of the cost.
DISCOUNT_BASIS_POINTS_MAX: int

@final
class Tier:
    """From `from_second` of a call on, each increment costs its part of the price.

    `price_nanos` (1e-9 currency units) is the price of `per_seconds`; `increment_seconds` is
    what is charged at a time. Raises ValueError naming what is out of bounds.
    """

    def __new__(
        cls, from_second: int, price_nanos: int, per_seconds: int, increment_seconds: int
    ) -> Tier: ...
    @property
    def from_second(self) -> int: ...
    @property
    def price_nanos(self) -> int: ...
    @property
    def per_seconds(self) -> int: ...
    @property
    def increment_seconds(self) -> int: ...
    def __hash__(self) -> int: ...

@final
class Window:
    """The terms of calls at certain times of the week, by the wall clock of the rate's zone.

    `days` has one bit a weekday, bit 0 for Monday. The window is open from `start_minute` of
    such a day up to, not including, `end_minute`: on the next day when that is not later.
    Midnight at its end is 1440 (or 0). Raises ValueError naming what is out of bounds.
    """

    def __new__(
        cls,
        days: int,
        start_minute: int,
        end_minute: int,
        tiers: Iterable[Tier],
        connect_fee: int = 0,
        free_seconds: int = 0,
    ) -> Window: ...
    @property
    def days(self) -> int: ...
    @property
    def start_minute(self) -> int: ...
    @property
    def end_minute(self) -> int: ...
    @property
    def tiers(self) -> tuple[Tier, ...]: ...
    @property
    def connect_fee(self) -> int: ...
    @property
    def free_seconds(self) -> int: ...
    def __hash__(self) -> int: ...

@final
class Rate:
    """What calls to one destination cost. Immutable, hashable, equal by value.

    Amounts are micros, durations whole seconds up to SECONDS_MAX, moments Unix seconds (they
    only matter with windows). Every cost is exact, and rounded once. It may exceed the bound of
    an amount of money, but never 2**62. Where two windows are open, the earlier one counts; the
    tiers, fee and free seconds given to the rate itself are those of the rest of the time.

    A discount in basis points (1/10000) is that part of the rounded cost, cut to the rate's
    decimals. Whatever speaks of a cost means what is left of it, `max_cost` included.

    The constructor raises TypeError or ValueError naming what is wrong. Methods raise ValueError
    for durations and moments out of bounds.
    """

    def __init__(
        self,
        *,
        tiers: Iterable[Tier],
        connect_fee: int = 0,
        free_seconds: int = 0,
        rounding_mode: str = "half_up",
        rounding_decimals: int = 6,
        max_cost: int | None = None,
        max_cost_action: str = "free",
        windows: Sequence[Window] = (),
        timezone: str = "UTC",
        discount_basis_points: int = 0,
    ) -> None: ...
    def cost(self, seconds: int, answered_at: int = 0) -> int:
        """Return the micros that a call of `seconds` costs when answered at that Unix second."""

    def seconds_for(self, amount: int, answered_at: int = 0, limit: int = ...) -> int:
        """Return the most seconds up to `limit` that cost at most `amount` micros.

        It is the end of an increment, or of the free seconds, or `limit`.
        """

    def hold(self, seconds: int, now: int, ring_seconds: int) -> int:
        """Return the micros to hold for `seconds` of a call that may ring `ring_seconds` yet.

        The dearest of the windows open from now until then, each as if it lasted.
        """

    def hold_seconds_for(self, amount: int, now: int, ring_seconds: int, limit: int = ...) -> int:
        """Return the most seconds up to `limit` whose `hold` is at most `amount` micros."""

    def first_priced(self, answered_at: int = 0) -> tuple[int, int]:
        """Return (seconds, micros) of the shortest call of whole increments that costs anything.

        (0, 0) when not even the longest call does.
        """

    def seconds_until_max_cost(self, answered_at: int = 0) -> int | None:
        """Return the most seconds that cost at most `max_cost`, when that ends the call.

        None when there is no such limit.
        """

    def increment_at(self, second: int, answered_at: int = 0) -> int:
        """Return the seconds of the increment that starts at, or contains, `second`."""

    @property
    def is_free(self) -> bool:
        """Whether every price and every connect fee, of every window, is 0, or discounted to it."""

    @property
    def dearest_per_minute_nanos(self) -> int:
        """The dearest price of a minute in any tier of any window, rounded up, without discount."""

    def per_minute_text(self, at: int = 0) -> str:
        """Return the per-minute price in force at `at` as a decimal: "0.01".

        It is that of the first tier that costs anything, half up at 9 decimals, without the
        discount; "0" if none.
        """

    def discounted(self, discount_basis_points: int) -> Rate:
        """Return the same rate with this discount, 0 to 10000, instead of its own."""

    @property
    def discount_basis_points(self) -> int: ...
    @property
    def tiers(self) -> tuple[Tier, ...]: ...
    @property
    def connect_fee(self) -> int: ...
    @property
    def free_seconds(self) -> int: ...
    @property
    def rounding_mode(self) -> str: ...
    @property
    def rounding_decimals(self) -> int: ...
    @property
    def max_cost(self) -> int | None: ...
    @property
    def max_cost_action(self) -> str: ...
    @property
    def windows(self) -> tuple[Window, ...]: ...
    @property
    def timezone(self) -> str:
        """The zone whose wall clock opens the windows; "UTC" where there are none."""

    def __hash__(self) -> int: ...
    def pack(self) -> bytes:
        """Return the rate as bytes: the same for equal rates, at most 32 for a plain one.

        A discount takes two more.
        """

    @staticmethod
    def unpack(data: bytes) -> Rate:
        """Return the rate that `pack` made these bytes of; ValueError for any others."""
