"""Line charts as SVG that takes its colours from the page it stands in."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 520, 246
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 20, 34
TICKS = 4
Points = Sequence[tuple[float, float]]


def line_chart(
    series: Mapping[str, Points], *, x: str, y: str, log: bool = False, marked: float | None = None
) -> str:
    """An SVG of named lines over the same axes.

    Args:
        series: points (x, y) by name, in ascending x; an empty name is not shown.
        x, y: what the axes show.
        log: whether y is drawn on a logarithmic scale; then all y must be above 0.
        marked: an x at which a vertical line is drawn.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    across = _Axis([p[0] for p in points], LEFT, WIDTH - RIGHT, log=False)
    up = _Axis([p[1] for p in points], HEIGHT - BOTTOM, TOP, log=log)
    parts = [*_grid(across, up), *_labels(x, y), _names(list(series))]
    if marked is not None:
        at = across.place(marked)
        parts.append(f'<path class="marked" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    for number, line in enumerate(series.values()):
        parts.append(_line(number, [(across.place(a), up.place(b)) for a, b in line]))
    body = "".join(parts)
    told = escape(f"{y or ', '.join(series)} by {x}")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">{body}</svg>'


class _Axis:
    """Places of values between two pixels."""

    def __init__(self, values: Sequence[float], first: float, last: float, *, log: bool) -> None:
        self._scale = math.log10 if log else float
        low, high = min(values), max(values)
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        self._low, self._high = self._scale(low), self._scale(high)
        self._first, self._last, self._log = first, last, log

    def place(self, value: float) -> float:
        """The pixel of a value."""
        share = (self._scale(value) - self._low) / (self._high - self._low)
        return self._first + share * (self._last - self._first)

    def ticks(self) -> list[float]:
        """Values at equal distances, the ends among them."""
        step = (self._high - self._low) / TICKS
        found = [self._low + step * k for k in range(TICKS + 1)]
        return [10**value for value in found] if self._log else found


def _grid(across: _Axis, up: _Axis) -> list[str]:
    out = []
    for value in up.ticks():
        at = up.place(value)
        out.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" class="end">{value:.3g}</text>')
    for value in across.ticks():
        at = across.place(value)
        out.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" class="mid">{value:.4g}</text>')
    return out


def _labels(x: str, y: str) -> list[str]:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [
        f'<text x="{middle:.0f}" y="{HEIGHT - 3}" class="mid">{escape(x)}</text>',
        f'<text x="{LEFT}" y="{TOP - 8}">{escape(y)}</text>',
    ]


def _names(names: Sequence[str]) -> str:
    """In the colours of their lines, above the chart."""
    told = [
        f'<tspan class="line{number}" dx="{8 if number else 0}">{escape(name)}</tspan>'
        for number, name in enumerate(names)
        if name
    ]
    return f'<text x="{WIDTH - RIGHT}" y="{TOP - 8}" class="end">{"".join(told)}</text>'


def _line(number: int, points: Points) -> str:
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    return f'<path class="line line{number}" d="M{path}"/>'
