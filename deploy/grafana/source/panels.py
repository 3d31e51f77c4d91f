"""Panels and dashboards in Grafana's JSON: what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

#: The grid of a dashboard is 24 units wide.
WIDTH: Final = 24
_SCHEMA_VERSION: Final = 39
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
#: What every query is limited to; the dashboards' variables.
SCOPE: Final = 'job="$job", instance=~"$instance"'
GREEN, YELLOW, RED = "green", "yellow", "red"

Json = dict[str, Any]


class Query(NamedTuple):
    """One query and the legend of its series."""

    expression: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel. Its size is in units of the grid."""

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int
    height: int
    options: Json
    defaults: Json


def rate(name: str, *by: str, only: str = "", window: str = "$__rate_interval") -> str:
    """Return the query for a counter's growth a second, summed by labels."""
    wanted = f"{SCOPE}, {only}" if only else SCOPE
    return f"sum by ({', '.join(by)}) (rate({name}{{{wanted}}}[{window}]))"


def quantile(share: str, name: str, *by: str, only: str = "") -> str:
    """Return the query for a quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', 'le', *by, only=only)})"


def of_store(name: str, *by: str) -> str:
    """Return the query for a figure of the store, which every host tells alike."""
    return f"max by ({', '.join(by)}) ({name}{{{SCOPE}}})"


def lines(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 12,
    stacked: bool = False,
    thresholds: Sequence[tuple[float, str]] = (),
) -> Panel:
    """Return curves over time; `thresholds` are drawn as dashed lines."""
    custom: Json = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stacked else 8,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }
    defaults: Json = {"custom": custom, "min": 0}
    if thresholds:
        custom["thresholdsStyle"] = {"mode": "dashed"}
        defaults["thresholds"] = _thresholds(thresholds)
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel("timeseries", title, description, unit, queries, width, 8, options, defaults)


def number(
    title: str,
    description: str,
    unit: str,
    expression: str,
    thresholds: Sequence[tuple[float, str]] = (),
    width: int = 4,
) -> Panel:
    """Return one number as it is now, coloured from each threshold on."""
    options = {
        "colorMode": "value" if thresholds else "none",
        "graphMode": "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    defaults = {"thresholds": _thresholds(thresholds)}
    return Panel(
        "stat", title, description, unit, (Query(expression),), width, 4, options, defaults
    )


def table(title: str, description: str, unit: str, expression: str, width: int = 12) -> Panel:
    """Return the series of now as rows."""
    options = {"showHeader": True, "sortBy": [{"displayName": "Value", "desc": True}]}
    return Panel("table", title, description, unit, (Query(expression),), width, 8, options, {})


def heat(title: str, description: str, expression: str, width: int = 12) -> Panel:
    """Return a histogram over time."""
    options = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5},
        "yAxis": {"unit": "s"},
        "cellGap": 1,
    }
    query = Query(expression, "{{le}}")
    return Panel("heatmap", title, description, "s", (query,), width, 8, options, {})


def dashboard(uid: str, title: str, description: str, *rows: tuple[str, list[Panel]]) -> Json:
    """Return a dashboard of titled rows of panels, laid out from left to right."""
    panels: list[Json] = []
    top = 0
    for heading, members in rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": heading,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
                "panels": [],
            }
        )
        top += 1
        left = height = 0
        for one in members:
            if left + one.width > WIDTH:
                left, top, height = 0, top + height, 0
            place = {"x": left, "y": top, "w": one.width, "h": one.height}
            panels.append(_panel(len(panels) + 1, one, place))
            left, height = left + one.width, max(height, one.height)
        top += height
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["authz"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": [_firing_alerts()]},
        "links": [
            {"type": "dashboards", "title": "authz", "tags": ["authz"], "asDropdown": True,
             "includeVars": True, "keepTime": True}
        ],
        "panels": panels,
    }  # fmt: skip


def _panel(number: int, panel: Panel, place: Json) -> Json:
    is_table = panel.kind == "table"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "options": panel.options,
        "fieldConfig": {"defaults": {"unit": panel.unit, **panel.defaults}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                "format": "table" if is_table else "heatmap" if panel.kind == "heatmap"
                else "time_series",
                "instant": is_table,
                "range": not is_table,
            }
            for index, query in enumerate(panel.queries)
        ],
        "transformations": [{"id": "organize", "options": {"excludeByName": {"Time": True}}}]
        if is_table
        else [],
    }  # fmt: skip


def _thresholds(thresholds: Sequence[tuple[float, str]]) -> Json:
    steps: list[Json] = [{"color": GREEN, "value": None}]
    steps += [{"color": color, "value": value} for value, color in thresholds]
    return {"mode": "absolute", "steps": steps}


def _variables() -> list[Json]:
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus",
         "current": {}, "hide": 0},
        _label_variable("job", "label_values(authz_build_info, job)", multiple=False),
        _label_variable(
            "instance", 'label_values(authz_build_info{job="$job"}, instance)', multiple=True
        ),
    ]  # fmt: skip


def _label_variable(name: str, query: str, *, multiple: bool) -> Json:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": multiple,
        "includeAll": multiple,
        "allValue": ".*" if multiple else None,
        "current": {"text": "All", "value": "$__all"} if multiple else {},
        "hide": 0,
    }


def _firing_alerts() -> Json:
    return {
        "name": "Alerts",
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": RED,
        "expr": 'ALERTS{alertname=~"Authz.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
    }
