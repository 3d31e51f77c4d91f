"""From a decision to the dialplan that carries it out, limits first.

The dialplan is all that this door ever says to the switch, so it holds everything that ends the
call in time: a cut that survives the end of the daemon, and a ringing time.
"""

from __future__ import annotations

import re
from typing import Final

from authz.config.freeswitch import FreeswitchSettings
from authz.config.freeswitch_web import FreeswitchWebSettings
from authz.hooks.freeswitch import variables
from authz.hooks.freeswitch.curl_lookup import Question
from authz.hooks.freeswitch.dialplan_xml import Action, extension, set_variable
from authz.hooks.freeswitch.durations import cut_seconds
from authz.hooks.freeswitch.refusals import Refusal
from authz.model import Grant
from authz.reasons import CallClass

_CUT_CAUSE: Final = "allotted_timeout"
_ANY_REASON: Final = "*"
_WORD: Final = re.compile(r"(?<!\$)\{(number|digits|dialled|account)\}")


class DialplanAnswers:
    """Writes the dialplan of decided calls, as the settings say where they go and how they end."""

    def __init__(self, freeswitch: FreeswitchSettings, web: FreeswitchWebSettings) -> None:
        self._freeswitch = freeswitch
        self._bridge = web.bridge
        self._announcements = {one.reason: one.file for one in freeswitch.announcements}

    def released(self, question: Question, grant: Grant) -> bytes:
        """Return the dialplan of an allowed call: marks, limits, then its destination."""
        actions = [set_variable("hangup_after_bridge", "true")]
        if question.has_payer:
            actions += _marks(question, grant)
        else:
            actions.append(set_variable(variables.REASON, grant.class_))
        # A leg that was decided before has its cut; of several the earliest wins.
        if not question.is_repeat:
            actions += _limits(question, grant)
        actions.append(self._destination(question, grant))
        return extension(question.context, actions)

    def refused(self, context: str, refusal: Refusal, *, is_answered: bool) -> bytes:
        """Return the dialplan of a refused call: what its caller hears, then its end."""
        actions = [set_variable(variables.REASON, refusal.reason)]
        announcement = self._announcements.get(refusal.reason, self._announcements.get(_ANY_REASON))
        if announcement is not None:
            if not is_answered:
                actions.append(Action("pre_answer"))
            actions.append(Action("playback", announcement))
        # Who has answered can give no other final response.
        if is_answered or self._freeswitch.refuse_by == "hangup":
            actions.append(Action("hangup", refusal.hangup_cause))
        else:
            actions.append(Action("respond", refusal.status_line))
        return extension(context, actions)

    def _destination(self, question: Question, grant: Grant) -> Action:
        freeswitch = self._freeswitch
        destination = question.destination or (_dialled(question, grant),)
        if self._bridge is None:
            usual = ("", freeswitch.release_dialplan, freeswitch.release_context)
            words = destination + usual[len(destination) :]
            return Action("transfer", " ".join(words))
        filled = {
            "number": grant.number,
            "digits": grant.number.removeprefix("+"),
            "dialled": _dialled(question, grant),
            "account": question.request.account,
        }
        return Action("bridge", _WORD.sub(lambda match: filled[match[1]], self._bridge))


def _marks(question: Question, grant: Grant) -> list[Action]:
    request = question.request
    return [
        set_variable(variables.ACCOUNT, request.account),
        set_variable(variables.DIRECTION, request.direction),
        set_variable(variables.TO, _dialled(question, grant)),
        # By reference: an operator may let callers choose the uuid (their Call-ID).
        set_variable(variables.CALL, "${uuid}"),
        set_variable(variables.REASON, grant.reason),
    ]


def _limits(question: Question, grant: Grant) -> list[Action]:
    actions = []
    if question.is_answered and question.at_us is not None:
        actions.append(set_variable(variables.STARTED_US, question.at_us))
    if grant.seconds is not None:
        cut = f"+{cut_seconds(grant.seconds)} {_CUT_CAUSE}"
        # What waits for an answer that has been would never run.
        if question.is_answered:
            actions.append(Action("sched_hangup", cut))
        else:
            actions.append(set_variable("execute_on_answer", f"sched_hangup {cut}"))
    for name in ("call_timeout", "originate_timeout"):
        actions.append(set_variable(name, grant.ring_seconds))
    return actions


def _dialled(question: Question, grant: Grant) -> str:
    """Return what was dialled; of an emergency call the number as it is known to be one."""
    # However it was written (`9-1-1`, `911;phone-context=+1`), it must be dialled.
    return grant.number if grant.class_ == CallClass.EMERGENCY.label else question.request.to
