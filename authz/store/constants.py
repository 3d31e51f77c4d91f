"""Numbers that Python and Lua share, besides reasons: states, marks, kinds.

The script loader writes them into the scripts wherever one is named, as `KIND_CALL` for
`Kind.CALL`, so that the two sides cannot drift.
"""

from __future__ import annotations

import enum

from authz.money import BOUND_MICROS
from authz.reasons import REASONS, Billing, CallClass, Direction, Excuse, Outcome
from authz.store.layouts import CALL_LAYOUT_NUMBER, LAYOUT_NUMBER, NONE


class State(enum.IntEnum):
    """State of a call record."""

    OPEN = 1
    ORPHAN = 2
    #: Not a call: the mark that a settle for an unknown call leaves for one ringing lease.
    ENDED = 3


class Mark(enum.IntFlag):
    """Why a grant may exceed what was available, or what a ledger entry is."""

    NONE = 0
    #: Granted without asking the store.
    DEGRADED = 1
    #: Reopened from an orphan.
    REOPENED = 2
    #: An orphan's settlement, which the switch's own settle still corrects.
    PROVISIONAL = 4
    #: The difference between a provisional settlement and the final one, or its reversal.
    CORRECTION = 8
    #: Booked from the settle alone; the store never saw the call open.
    UNKNOWN = 16


class Kind(enum.IntEnum):
    """Kind of a ledger entry."""

    CALL = 1
    PAYMENT = 2
    RECHARGE = 3
    MANUAL = 4
    SMS = 5
    ASR = 6
    MOBILE_DATA = 7
    RECURRING = 8
    REFUND = 9
    ADJUSTMENT = 10

    @property
    def label(self) -> str:
        """The word used in requests, answers and statements."""
        return self.name.lower()


#: Kinds that count into the daily and monthly spend.
SPEND_KINDS = frozenset({Kind.CALL, Kind.SMS, Kind.ASR, Kind.MOBILE_DATA})


class Policy(enum.IntEnum):
    """How an orphan is settled until its switch says otherwise."""

    CHARGE_REPORTED = 0
    CHARGE_HELD = 1
    RELEASE = 2


class PerLeg(enum.IntEnum):
    """Whether a posting gives each leg of a call back at most what it was charged, and who says
    what that was: the call's tombstone, or the caller, from the archive."""

    NONE = 0
    TOMBSTONE = 1
    ARCHIVE = 2


class Recharge(enum.IntEnum):
    """`auto_recharge.mode`; NONE when it is off."""

    NONE = 0
    REQUEST = 1
    CREDIT = 2


class RechargeState(enum.IntEnum):
    """What became of a requested recharge that is not credited; one that is has no record."""

    PENDING = 1
    EXPIRED = 2
    FAILED = 3

    @property
    def label(self) -> str:
        """The word used in answers."""
        return self.name.lower()


#: A pending recharge expires after this long.
RECHARGE_PENDING_SECONDS = 3600
#: A failed recharge is asked for again after this long, doubled with every failure.
RECHARGE_RETRY_SECONDS = 300
#: An account whose recharges have reached their monthly cap is looked at again after this long.
RECHARGE_CAPPED_SECONDS = 3600
#: `call.denied` and `rate.missing` are told at most once in this long, see `denied-2.lua`.
DENIED_EVENT_SECONDS = 60
#: `spend_limit.warning` is raised at this share of the limit, in percent.
SPEND_WARNING_PERCENT = 80
#: At most one event in this long tells that an account's trunks are exhausted, or burst.
TRUNKS_EVENT_SECONDS = 60
#: Bits of a day's filter of tombstones, per bucket (256 KiB when full).
CLOSED_FILTER_BITS = 2_097_152


def lua_constants() -> dict[str, int]:
    """Return every constant that a script may name, with its number."""
    constants = {f"REASON_{name.upper()}": row.code for name, row in REASONS.items()}
    for prefix, members in (
        ("OUTCOME", Outcome), ("BILLING", Billing), ("EXCUSE", Excuse), ("CLASS", CallClass),
        ("DIRECTION", Direction), ("STATE", State), ("MARK", Mark), ("KIND", Kind),
        ("POLICY", Policy), ("RECHARGE", Recharge), ("RECHARGE", RechargeState),
        ("PER_LEG", PerLeg),
    ):  # fmt: skip
        constants |= {f"{prefix}_{member.name}": int(member) for member in members}
    return constants | {
        "LAYOUT_NUMBER": LAYOUT_NUMBER,
        "LAYOUT_CALL": CALL_LAYOUT_NUMBER,
        "LIMIT_NONE": NONE,
        "BOUND_MICROS": BOUND_MICROS,
        "TRUNKS_EVENT_SECONDS": TRUNKS_EVENT_SECONDS,
        "CLOSED_FILTER_BITS": CLOSED_FILTER_BITS,
        "RECHARGE_PENDING_SECONDS": RECHARGE_PENDING_SECONDS,
        "RECHARGE_RETRY_SECONDS": RECHARGE_RETRY_SECONDS,
        "RECHARGE_CAPPED_SECONDS": RECHARGE_CAPPED_SECONDS,
        "DENIED_EVENT_SECONDS": DENIED_EVENT_SECONDS,
        "SPEND_WARNING_PERCENT": SPEND_WARNING_PERCENT,
    }
