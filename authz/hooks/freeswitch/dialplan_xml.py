"""Dialplan documents as mod_xml_curl reads them: the answer to one lookup, nothing more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from xml.sax.saxutils import quoteattr

CONTENT_TYPE: Final = b"text/xml"
_HEAD: Final = '<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'
#: What no XML 1.0 document may hold, not even escaped.
_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: The switch looks on (here: into its own files) only after exactly this answer.
NOT_FOUND: Final = (
    f"{_HEAD}"
    '<document type="freeswitch/xml">\n'
    ' <section name="result">\n'
    '  <result status="not found"/>\n'
    " </section>\n"
    "</document>\n"
).encode()


class Action(NamedTuple):
    """One application of the dialplan with its argument."""

    application: str
    data: str = ""


def set_variable(name: str, value: object) -> Action:
    """Return the action that sets a channel variable; the switch expands `${…}` in the value."""
    return Action("set", f"{name}={value}")


def extension(context: str, actions: Iterable[Action]) -> bytes:
    """Return the document of one context with one extension that always matches."""
    lines = "".join(
        f"     <action application={_quoted(one.application)} data={_quoted(one.data)}/>\n"
        for one in actions
    )
    return (
        f"{_HEAD}"
        '<document type="freeswitch/xml">\n'
        ' <section name="dialplan" description="authz">\n'
        f"  <context name={_quoted(context)}>\n"
        '   <extension name="authz">\n'
        "    <condition>\n"
        f"{lines}"
        "    </condition>\n"
        "   </extension>\n"
        "  </context>\n"
        " </section>\n"
        "</document>\n"
    ).encode()


def _quoted(text: str) -> str:
    return quoteattr(_ILLEGAL.sub("\ufffd", text))
