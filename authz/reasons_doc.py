"""docs/reasons.md, generated from the table of reasons.

`python -m authz.reasons_doc` prints it; a test compares the two.
"""

from __future__ import annotations

import sys

from authz.reasons import REASONS

_HEAD = """\
# Reasons

Every decision names a `reason`. A denial also carries the SIP status (RFC 3261) and the
hang-up cause (Q.850, as FreeSWITCH spells it) with which the switch should refuse the call.
This page is generated from `authz/reasons.py`: `python -m authz.reasons_doc`.

| code | reason | SIP status | hang-up cause |
| ---: | --- | ---: | --- |
"""


def markdown() -> str:
    """Return docs/reasons.md: a table, then each reason as a heading."""
    lines = [_HEAD]
    for row in REASONS.values():
        cause = row.hangup_cause
        if row.hangup_cause_inbound is not None:
            cause = f"{cause}; inbound: {row.hangup_cause_inbound}"
        lines.append(f"| {row.code} | [`{row.name}`](#{row.name}) | {row.sip_status} | {cause} |\n")
    for row in REASONS.values():
        lines.append(f"\n## {row.name}\n\n{row.meaning}\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())
