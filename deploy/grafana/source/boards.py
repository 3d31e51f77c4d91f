"""All dashboards, as the files that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from deploy.grafana.source.fraud import fraud
from deploy.grafana.source.freeswitch import freeswitch
from deploy.grafana.source.kazoo import kazoo
from deploy.grafana.source.machines import machines
from deploy.grafana.source.money import money
from deploy.grafana.source.overview import overview

FOLDER: Final = Path(__file__).resolve().parents[1] / "dashboards"


def render() -> dict[str, str]:
    """Return the text of each dashboard by the name of its file."""
    boards = (overview(), money(), fraud(), machines(), freeswitch(), kazoo())
    return {f"{one['uid']}.json": json.dumps(one, indent=2) + "\n" for one in boards}
