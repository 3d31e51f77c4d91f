"""The table of events in docs/alerts.md, generated from `authz/event_types.py`.

`python -m authz.events.docs` prints it; a test compares the two.
"""

from __future__ import annotations

import sys

from authz.event_types import EVENT_TYPES


def markdown() -> str:
    """Return the table."""
    lines = [
        "| event | log level | facts besides `account` | meaning |\n",
        "| --- | --- | --- | --- |\n",
    ]
    for row in EVENT_TYPES.values():
        facts = ", ".join(f"`{fact}`" for fact in row.facts)
        lines.append(f"| `{row.name}` | {row.level} | {facts} | {row.meaning} |\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())
