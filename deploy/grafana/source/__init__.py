"""Writes the dashboards: one place for units, colours, legends and layout.

`python -m deploy.grafana.source` writes deploy/grafana/dashboards/; a test compares.
"""

from __future__ import annotations
