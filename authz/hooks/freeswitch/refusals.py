"""How a refused call ends on a FreeSWITCH: SIP status with its phrase, and hang-up cause."""

from __future__ import annotations

from typing import Final, NamedTuple

from authz.model import Denial
from authz.reasons import Reason

#: RFC 3261, section 21: what the statuses of the reason table are called in SIP.
_PHRASES: Final = {
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    484: "Address Incomplete",
    486: "Busy Here",
    487: "Request Terminated",
    503: "Service Unavailable",
}


class Refusal(NamedTuple):
    """Why a call is refused, and what its caller sees."""

    reason: str
    sip_status: int
    hangup_cause: str

    @property
    def status_line(self) -> str:
        """What the application `respond` takes: the status and its phrase."""
        return f"{self.sip_status} {_PHRASES[self.sip_status]}"


#: The dialled text is no number that a switch could be told to dial.
INVALID_NUMBER: Final = Refusal("invalid_number", 484, "INVALID_NUMBER_FORMAT")


def refusal_of(answer: Denial | Reason, direction: str = "outbound") -> Refusal:
    """Return the refusal for the engine's denial, or for a reason of the table."""
    if isinstance(answer, Denial):
        return Refusal(answer.reason, answer.sip_status, answer.hangup_cause)
    return Refusal(answer.name, answer.sip_status, answer.cause(direction))
