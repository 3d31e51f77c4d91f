"""Line charts as inline SVG: no script, no font, no address from elsewhere."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

_WIDTH: Final = 860
_HEIGHT: Final = 300
_LEFT: Final = 64
_RIGHT: Final = 150
_TOP: Final = 12
_BOTTOM: Final = 44
_MARKS_MAX: Final = 8
#: Distinct on light and dark ground.
COLOURS: Final = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#64748b")


class Line(NamedTuple):
    """One line of a chart: points as (x, y), ascending by x."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    is_dashed: bool = False


class Tick(NamedTuple):
    """A mark on an axis."""

    value: float
    label: str


class Axis(NamedTuple):
    """An axis: what is on it, from where to where, and its marks. `is_log` is by tens."""

    title: str
    low: float
    high: float
    ticks: Sequence[Tick]
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies between low (0) and high (1)."""
        if self.is_log:
            value = max(value, self.low)
            return (math.log10(value) - math.log10(self.low)) / (
                math.log10(self.high) - math.log10(self.low)
            )
        return (value - self.low) / (self.high - self.low)


def render(lines: Sequence[Line], x: Axis, y: Axis, shades: Sequence[tuple[float, float]]) -> str:
    """Return the chart; `shades` are stretches of the x axis to set apart."""
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at_x(value: float) -> float:
        return _LEFT + min(1.0, max(0.0, x.place(value))) * inner_width

    def at_y(value: float) -> float:
        return _TOP + (1 - min(1.0, max(0.0, y.place(value)))) * inner_height

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for begin, end in shades:
        width = at_x(end) - at_x(begin)
        parts.append(
            f'<rect class="shade" x="{at_x(begin):.1f}" y="{_TOP}" width="{width:.1f}" '
            f'height="{inner_height}"/>'
        )
    parts += _grid(x, y, at_x, at_y)
    for number, line in enumerate(lines):
        parts += _line(line, number, at_x, at_y)
    parts.append("</svg>")
    return "\n".join(parts)


_Place = Callable[[float], float]


def _grid(x: Axis, y: Axis, at_x: _Place, at_y: _Place) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for tick in x.ticks:
        place = f"{at_x(tick.value):.1f}"
        parts.append(f'<line class="grid" x1="{place}" x2="{place}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(_text(place, bottom + 16, tick.label, "middle"))
    for tick in y.ticks:
        place = f"{at_y(tick.value):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{place}" y2="{place}"/>')
        parts.append(_text(_LEFT - 8, f"{at_y(tick.value) + 4:.1f}", tick.label, "end"))
    middle = (_LEFT + right) / 2
    parts.append(_text(middle, _HEIGHT - 8, x.title, "middle"))
    parts.append(
        f'<text x="14" y="{(_TOP + bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(_TOP + bottom) / 2})">{html.escape(y.title)}</text>'
    )
    return parts


def _line(line: Line, number: int, at_x: _Place, at_y: _Place) -> list[str]:
    # A curve has far more points than the eye can tell apart.
    points = " ".join(dict.fromkeys(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in line.points))
    dashes = ' stroke-dasharray="5 4"' if line.is_dashed else ""
    style = f'fill="none" stroke="{line.colour}" stroke-width="1.8"{dashes}'
    key_y = _TOP + 10 + 18 * number
    key_x = _WIDTH - _RIGHT + 12
    return [
        f'<polyline {style} points="{points}"><title>{html.escape(line.name)}</title></polyline>',
        f'<line {style} x1="{key_x}" x2="{key_x + 22}" y1="{key_y}" y2="{key_y}"/>',
        _text(key_x + 28, key_y + 4, line.name, "start"),
    ]


def _text(x: float | str, y: float | str, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'


def tens_axis(title: str, values: Sequence[float]) -> Axis:
    """Return a logarithmic axis of whole powers of ten around the values above 0."""
    positive = [value for value in values if value > 0] or [1.0]
    low = math.floor(math.log10(min(positive)))
    high = max(low + 1, math.ceil(math.log10(max(positive))))
    ticks = [Tick(10.0**power, f"{10.0**power:g}") for power in range(low, high + 1)]
    return Axis(title, 10.0**low, 10.0**high, ticks, is_log=True)


def even_axis(title: str, low: float, high: float) -> Axis:
    """Return an axis with marks at round values."""
    high = high if high > low else low + 1
    step = 10.0 ** math.floor(math.log10((high - low) / _MARKS_MAX))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= _MARKS_MAX)
    first = math.ceil(low / step)
    last = math.ceil(high / step)
    ticks = [Tick(number * step, f"{number * step:g}") for number in range(first, last + 1)]
    return Axis(title, low, max(high, last * step), ticks)
