"""Legs of simulated calls: what is known of them, and what their events say."""

from __future__ import annotations

import time

from freeswitch.templates import (
    A_LEG,
    ANSWERED,
    EARLY_MEDIA,
    PARKED,
    RINGING,
    Headers,
    Names,
    form,
)

#: What a caller sees when an unanswered leg ends by a cause; measured, see transcript 02a.
SIP_STATUS = {
    "OUTGOING_CALL_BARRED": 403, "CALL_REJECTED": 603, "BEARERCAPABILITY_NOTAUTH": 403,
    "FACILITY_REJECTED": 501, "USER_BUSY": 486, "NO_ROUTE_DESTINATION": 404,
    "UNALLOCATED_NUMBER": 404, "INCOMING_CALL_BARRED": 403, "NORMAL_TEMPORARY_FAILURE": 503,
    "NORMAL_CIRCUIT_CONGESTION": 503, "RECOVERY_ON_TIMER_EXPIRE": 504,
    "SERVICE_NOT_IMPLEMENTED": 501, "DESTINATION_OUT_OF_ORDER": 502, "GATEWAY_DOWN": 503,
    "EXCHANGE_ROUTING_ERROR": 483, "ORIGINATOR_CANCEL": 487,
}  # fmt: skip
_OTHER_STATUS = 480
#: The number of a cause, where it is not 16; of the same measurement.
Q850 = {
    "OUTGOING_CALL_BARRED": 52, "CALL_REJECTED": 21, "BEARERCAPABILITY_NOTAUTH": 57,
    "FACILITY_REJECTED": 29, "USER_BUSY": 17, "NO_ROUTE_DESTINATION": 3,
    "UNALLOCATED_NUMBER": 1, "INCOMING_CALL_BARRED": 54, "NORMAL_TEMPORARY_FAILURE": 41,
    "NORMAL_CIRCUIT_CONGESTION": 34, "SERVICE_UNAVAILABLE": 63, "RECOVERY_ON_TIMER_EXPIRE": 102,
    "SERVICE_NOT_IMPLEMENTED": 79, "DESTINATION_OUT_OF_ORDER": 27, "SUBSCRIBER_ABSENT": 20,
    "EXCHANGE_ROUTING_ERROR": 25, "INTERWORKING": 127, "NO_ANSWER": 19,
}  # fmt: skip
#: Causes that exist and are 16; any other name becomes NORMAL_CLEARING.
_PLAIN_CAUSES = {
    "NORMAL_CLEARING", "ALLOTTED_TIMEOUT", "GATEWAY_DOWN", "ORIGINATOR_CANCEL", "SYSTEM_SHUTDOWN",
    "LOSE_RACE", "MANAGER_REQUEST", "BLIND_TRANSFER", "ATTENDED_TRANSFER",
}  # fmt: skip


def known_cause(text: str) -> str:
    """Return the cause that FreeSWITCH takes a word for."""
    cause = text.upper()
    if cause in Q850 or cause in _PLAIN_CAUSES:
        return cause
    by_number = {str(number): name for name, number in Q850.items()}
    return by_number.get(text, "UNKNOWN" if text.isdigit() else "NORMAL_CLEARING")


class Leg:
    """One leg. Times are microseconds of the switch's clock; 0 has not happened."""

    def __init__(
        self, uuid: str, direction: str, from_number: str, to_number: str, context: str, now_us: int
    ) -> None:
        self.uuid = uuid
        self.direction = direction
        self.from_number = from_number
        self.to_number = to_number
        self.context = context
        #: Where it goes now; a transfer changes it.
        self.destination = to_number
        self.variables: dict[str, str | list[str]] = {}
        self.other: Leg | None = None
        #: The last other leg, which events of the end still name.
        self.last_other_uuid = ""
        self.is_parked = False
        self.has_rung = False
        self.application = ("", "")
        self.created_us = self.profile_created_us = now_us
        self.progress_us = 0
        self.progress_media_us = 0
        self.answered_us = 0
        self.bridged_us = 0
        self.hangup_us = 0
        self.cause = ""
        #: What the caller's telephone saw at the end of an unanswered call; 0 while it lives,
        #: or if it was answered.
        self.sip_status = 0

    @property
    def is_caller(self) -> bool:
        """Whether it is the leg that came in."""
        return self.direction == A_LEG

    @property
    def is_up(self) -> bool:
        """Whether it has not hung up."""
        return not self.hangup_us

    @property
    def is_answered(self) -> bool:
        """Whether it was answered."""
        return self.answered_us > 0

    @property
    def phase(self) -> str:
        """How far it came."""
        if self.progress_media_us:
            return EARLY_MEDIA
        if self.is_answered:
            return ANSWERED
        return RINGING if self.has_rung or not self.is_caller else PARKED

    @property
    def begun_seconds(self) -> int:
        """The begun seconds that it talked, of the milliseconds in which a switch tells them."""
        return -(-((self.billed_us + 500) // 1_000) // 1_000)

    @property
    def billed_us(self) -> int:
        """How long it was up after the answer."""
        return (self.hangup_us - self.answered_us) if self.answered_us else 0

    def hang_up(self, cause: str, now_us: int, sip_status: int = 0) -> None:
        """End the leg, once."""
        self.cause = cause
        self.hangup_us = now_us
        if not self.is_answered:
            self.sip_status = sip_status or SIP_STATUS.get(cause, _OTHER_STATUS)

    def headers(self, event_name: str, template_name: str = "") -> Headers:
        """Return the headers of an event of this leg as it is now, without those of the moment."""
        other_uuid = self.other.uuid if self.other else self.last_other_uuid
        a_uuid, b_uuid = (self.uuid, other_uuid) if self.is_caller else (other_uuid, self.uuid)
        names = Names(a_uuid, b_uuid, self.from_number, self.to_number)
        headers = form(template_name or event_name, self.direction, self.phase).fill(names)
        headers["Event-Name"] = event_name
        headers |= {
            "Unique-ID": self.uuid,
            "Caller-Unique-ID": self.uuid,
            "Caller-Context": self.context,
            "Caller-Destination-Number": self.destination,
            "Caller-Channel-Created-Time": str(self.created_us),
            "Caller-Profile-Created-Time": str(self.profile_created_us),
            "Caller-Channel-Progress-Time": str(self.progress_us),
            "Caller-Channel-Progress-Media-Time": str(self.progress_media_us),
            "Caller-Channel-Answered-Time": str(self.answered_us),
            "Caller-Channel-Bridged-Time": str(self.bridged_us),
            "Caller-Channel-Hangup-Time": str(self.hangup_us),
            "variable_uuid": self.uuid,
        }
        if not other_uuid:
            for name in [name for name in headers if name.startswith("Other-")]:
                del headers[name]
        if self.cause:
            headers |= self._end()
        if event_name == "CHANNEL_HANGUP_COMPLETE":
            for name in [name for name in headers if name.endswith("_stamp")]:
                del headers[name]
            headers |= self._counters()
        headers.update((f"variable_{name}", value) for name, value in self.variables.items())
        return headers

    def row(self, host: str) -> dict[str, str]:
        """Return the leg's row of `show channels`."""
        is_bridged = self.other is not None and self.bridged_us > 0
        call_uuid = (self.uuid if self.is_caller else self.other_uuid) if is_bridged else ""
        application, data = self.application
        return {
            "uuid": self.uuid,
            "direction": self.direction,
            "created": _stamp(self.created_us),
            "created_epoch": str(self.created_us // 1_000_000),
            "name": str(self.headers("CHANNEL_DATA", "CHANNEL_CREATE")["Channel-Name"]),
            "state": "CS_EXECUTE" if self.is_caller else "CS_EXCHANGE_MEDIA",
            "cid_name": self.from_number,
            "cid_num": self.from_number,
            "ip_addr": "127.0.0.1",
            "dest": self.destination,
            "application": application,
            "application_data": data,
            "dialplan": "XML",
            "context": self.context,
            "hostname": host,
            "callstate": "ACTIVE" if self.is_answered else "RINGING",
            "call_uuid": call_uuid if self.is_caller else self.other_uuid,
            "initial_dest": self.to_number,
        }

    @property
    def other_uuid(self) -> str:
        """The uuid of the leg it is or was joined with."""
        return self.other.uuid if self.other else self.last_other_uuid

    def _end(self) -> Headers:
        application, argument = self.application
        return {
            "Hangup-Cause": self.cause,
            "Answer-State": "hangup",
            "variable_hangup_cause": self.cause,
            "variable_hangup_cause_q850": str(Q850.get(self.cause, 16)),
            "variable_last_app": application,
            "variable_last_arg": argument,
        }

    def _counters(self) -> Headers:
        moments = {
            "start": self.created_us,
            "profile_start": self.profile_created_us,
            "answer": self.answered_us,
            "bridge": self.bridged_us,
            "progress": self.progress_us,
            "progress_media": self.progress_media_us,
            "end": self.hangup_us,
        }
        headers: Headers = {}
        for name, moment_us in moments.items():
            if moment_us:
                headers[f"variable_{name}_stamp"] = _stamp(moment_us)
            headers[f"variable_{name}_epoch"] = str(moment_us // 1_000_000)
            headers[f"variable_{name}_uepoch"] = str(moment_us)
        spans = {
            ("duration", "mduration", "uduration"): (self.created_us, self.hangup_us),
            ("billsec", "billmsec", "billusec"): (self.answered_us, self.hangup_us),
            ("answersec", "answermsec", "answerusec"): (self.created_us, self.answered_us),
            ("progresssec", "progressmsec", "progressusec"): (self.created_us, self.progress_us),
        }
        for (seconds, milliseconds, microseconds), (begin_us, end_us) in spans.items():
            if not end_us or not begin_us:
                begin_us = end_us = 0
            # Whole seconds are of the clock's: a call of 3.52 s can have a billsec of 4.
            headers[f"variable_{seconds}"] = str(end_us // 1_000_000 - begin_us // 1_000_000)
            headers[f"variable_{milliseconds}"] = str((end_us - begin_us + 500) // 1_000)
            headers[f"variable_{microseconds}"] = str(end_us - begin_us)
        return headers


def _stamp(moment_us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment_us // 1_000_000))
