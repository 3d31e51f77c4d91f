"""Hang-up causes of ITU-T Q.850's normal class, which end nearly every call.

Switches name a cause in words of their own for the Q.850 values; these are FreeSWITCH's, which
Kazoo uses too. The ledger keeps such a cause as one character, because it is repeated in every
entry and the ledger is most of what a store holds.
"""

from __future__ import annotations

from typing import Final

#: Value of Q.850, table 1, to the switches' name for it.
NORMAL_CAUSES: Final = {
    1: "UNALLOCATED_NUMBER",
    2: "NO_ROUTE_TRANSIT_NET",
    3: "NO_ROUTE_DESTINATION",
    6: "CHANNEL_UNACCEPTABLE",
    7: "CALL_AWARDED_DELIVERED",
    16: "NORMAL_CLEARING",
    17: "USER_BUSY",
    18: "NO_USER_RESPONSE",
    19: "NO_ANSWER",
    20: "SUBSCRIBER_ABSENT",
    21: "CALL_REJECTED",
    22: "NUMBER_CHANGED",
    23: "REDIRECTION_TO_NEW_DESTINATION",
    25: "EXCHANGE_ROUTING_ERROR",
    27: "DESTINATION_OUT_OF_ORDER",
    28: "INVALID_NUMBER_FORMAT",
    29: "FACILITY_REJECTED",
    30: "RESPONSE_TO_STATUS_ENQUIRY",
    31: "NORMAL_UNSPECIFIED",
}
_MARKS: Final = {name: chr(value) for value, name in NORMAL_CAUSES.items()}
_NAMES: Final = {mark: name for name, mark in _MARKS.items()}


def shorten_cause(name: str) -> str:
    """Return one control character for a cause of the table, any other text as it is.

    No caller's text is a control character: `SettleRequest` refuses them.
    """
    return _MARKS.get(name, name)


def restore_cause(text: str) -> str:
    """Return what `shorten_cause` was given."""
    return _NAMES.get(text, text)
