"""The one table of reasons: why a call was decided as it was, and what the switch shows for it.

`docs/reasons.md` and the constants of the Lua scripts are generated from here.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Literal, NamedTuple


class Reason(NamedTuple):
    """One row: what a decision's `reason` means, and the SIP and Q.850 words for it."""

    code: int
    name: str
    meaning: str
    sip_status: int
    hangup_cause: str
    #: Of an inbound call, where another cause than for an outbound one is right.
    hangup_cause_inbound: str | None = None

    @property
    def metric_label(self) -> str:
        """The label value of this reason in metrics: its name."""
        return self.name

    def cause(self, direction: str) -> str:
        """Return the hang-up cause for a call of that direction."""
        if direction == "inbound" and self.hangup_cause_inbound is not None:
            return self.hangup_cause_inbound
        return self.hangup_cause


_BARRED = ("OUTGOING_CALL_BARRED", "INCOMING_CALL_BARRED")
_ROWS = (
    Reason(0, "ok", "The call may start or go on.", 200, "NORMAL_CLEARING"),
    Reason(1, "account_unknown", "No such account, or its chain is broken.", 403, *_BARRED),
    Reason(2, "account_disabled",
           "The account or one of its ancestors is disabled.", 403, *_BARRED),
    Reason(3, "class_blocked",
           "An account of the chain blocks this class of number.", 403, *_BARRED),
    Reason(4, "prefix_blocked",
           "An account's blocked prefixes match the number at least as long as its allowed ones.",
           403, *_BARRED),
    Reason(5, "prefix_not_allowed",
           "An account allows only listed prefixes, and none matches.", 403, *_BARRED),
    Reason(6, "rate_blocked",
           "The deck row of the number is marked blocked.", 403, *_BARRED),
    Reason(7, "rate_too_high",
           "The dearest per-minute price of the rate is above an account's max_rate.",
           403, *_BARRED),
    Reason(8, "call_rate_exceeded",
           "More calls per second than max_calls_per_second.", 503, "NORMAL_TEMPORARY_FAILURE"),
    Reason(9, "max_calls_exceeded",
           "As many calls as max_calls are open.", 486, "USER_BUSY"),
    Reason(10, "max_class_calls_exceeded",
           "As many calls of this class as max_calls_by_class are open.", 486, "USER_BUSY"),
    Reason(11, "trunks_exhausted",
           "No trunk is free and the account may not pay per minute.", 402, *_BARRED),
    Reason(12, "no_rate",
           "No trunk is free and the account's deck has no row for the number.", 404,
           "NO_ROUTE_DESTINATION"),
    Reason(13, "insufficient_credit",
           "Not even one increment (or min_first_seconds) fits into the available credit.",
           402, *_BARRED),
    Reason(14, "daily_spend_limit",
           "Not even one increment fits into the rest of the daily spend limit.", 402, *_BARRED),
    Reason(15, "monthly_spend_limit",
           "Not even one increment fits into the rest of the monthly spend limit.",
           402, *_BARRED),
    Reason(16, "max_call_seconds",
           "The call has used all of max_call_seconds.", 402, "ALLOTTED_TIMEOUT"),
    Reason(17, "max_call_cost",
           "The call has used all of max_call_cost, or of its rate's greatest cost.",
           402, "ALLOTTED_TIMEOUT"),
    Reason(18, "call_id_conflict",
           "This call_id of this account is already used by another call.", 403, "CALL_REJECTED"),
    Reason(19, "call_ended",
           "The switch has already reported the end of this call.", 487, "ORIGINATOR_CANCEL"),
    Reason(20, "call_unknown",
           "No open call with this id: authorize it first, or send `to` to adopt it.", 481,
           "INVALID_CALL_REFERENCE"),
    Reason(21, "store_unavailable",
           "The store did not answer in time and on_store_failure says deny.", 503,
           "NORMAL_TEMPORARY_FAILURE"),
    Reason(22, "store_full",
           "The store's memory is nearly full; new paid calls wait.", 503,
           "NORMAL_TEMPORARY_FAILURE"),
    Reason(23, "overloaded",
           "More calls are waiting than this process answers in time.", 503,
           "SWITCH_CONGESTION"),
    Reason(24, "amount_out_of_range",
           "The hold would pass ±2,000,000,000 currency units.", 403, *_BARRED),
)  # fmt: skip

REASONS: dict[str, Reason] = {row.name: row for row in _ROWS}
BY_CODE: dict[int, Reason] = {row.code: row for row in _ROWS}


class Outcome(enum.IntEnum):
    """What a script answers besides reasons: negative, so that the two never mix.

    Internal to engine and store; no caller ever sees one.
    """

    STALE_CONFIG = -1
    STALE_TIME = -2
    SHORT = -3
    STALE_CALL = -4
    UNKNOWN_CALL = -5
    SETTLED_DIFFERENTLY = -6
    DUPLICATE = -7
    REFERENCE_CONFLICT = -8
    LEASE_RUNS = -9
    ACCOUNT_MISSING = -10
    NOT_EMPTY = -11
    OUT_OF_RANGE = -12
    NOT_REFUNDABLE = -13
    UNKNOWN_RECHARGE = -14


class _Labelled(enum.IntEnum):
    """A number kept in the store, with the word that callers read for it."""

    def __init__(self, _value: int) -> None:
        self.label = self.name.lower()


class CallClass(_Labelled):
    """What kind of number was dialled (see docs/ARCHITECTURE.md); the index kept in the store."""

    EMERGENCY = 0
    TOLLFREE = 1
    PREMIUM = 2
    CARIBBEAN = 3
    NATIONAL = 4
    INTERNATIONAL = 5
    SATELLITE = 6
    UNKNOWN = 7


CLASSES: dict[str, CallClass] = {one.label: one for one in CallClass}
#: Members by their number: indexing costs a tenth of asking the enumeration.
CLASS_OF: tuple[CallClass, ...] = tuple(CallClass)


class Billing(_Labelled):
    """How one leg of a call pays."""

    FREE = 0
    TRUNK = 1
    BURST = 2
    PER_MINUTE = 3


BILLING_OF: tuple[Billing, ...] = tuple(Billing)


@lru_cache(maxsize=4_096)
def billings_of(*numbers: int) -> tuple[Billing, ...]:
    """Return how legs pay, from a script's numbers: one tuple for all calls that pay alike."""
    return tuple([BILLING_OF[number] for number in numbers])


class Excuse(_Labelled):
    """What an account is spared in one call; its leg is free. Values of `leg_request.has_rate`."""

    #: Nothing but the money: its limits on calls hold.
    PAYMENT = 3
    #: Its limits on calls as well; the call counts in them nevertheless.
    LIMITS = 4


class Direction(_Labelled):
    """The account's view of a call: outbound when its user places it."""

    OUTBOUND = 0
    INBOUND = 1
    label: Literal["outbound", "inbound"]


DIRECTIONS: dict[str, Direction] = {one.label: one for one in Direction}
