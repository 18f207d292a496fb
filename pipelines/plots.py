"""Measurements as a picture: tokens/s and round cost, over batch size and over draft size."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.measurement import PARTS, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Callable[[Measurement], float]
Point = tuple[float, float]
MARKS = "osD^v<>PX*"


def draw(lines: Sequence[Measurement]) -> bytes:
    """A PNG. Without drafts of a fixed size only the panels over batch size are drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sized = any(line.recipe and line.recipe.is_fixed for line in lines)
    figure = Figure(figsize=(15 if sized else 10, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3 if sized else 2)
    _over_batch(figure.add_subplot(grid[0, 0]), lines, _speed, "tokens/s")
    _over_batch(figure.add_subplot(grid[0, 1]), lines, _round, "ms per round")
    if sized:
        _over_size(figure.add_subplot(grid[0, 2]), lines)
    _parts(figure.add_subplot(grid[1, :]), lines)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _speed(line: Measurement) -> float:
    return line.tokens_per_second


def _round(line: Measurement) -> float:
    return (line.round_ms or {}).get("round", float("nan"))


def _over_batch(axes: "Axes", lines: Sequence[Measurement], value: Value, label: str) -> None:
    sizes = sorted({line.batch_size for line in lines})
    for i, name in enumerate(dict.fromkeys(line.name for line in lines)):
        points = [(line.batch_size, value(line)) for line in lines if line.name == name]
        _plot(axes, points, name, i)
    axes.set(xlabel="batch size", ylabel=label, ylim=(0, None))
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.legend(fontsize=7)


def _over_size(axes: "Axes", lines: Sequence[Measurement]) -> None:
    """Speed-up over the drafted tokens; 0 is plain decoding."""
    groups: dict[str, list[Point]] = {}
    for line in lines:
        recipe = line.recipe
        if recipe is not None and recipe.is_fixed:
            drafter = line.name.replace(recipe.size, "").strip()
            width = "" if recipe.draft_width == 1 else f", {recipe.draft_width} wide"
            name = f"{drafter}{width}, batch {line.batch_size}"
            groups.setdefault(name, [(0, 1.0)]).append((int(recipe.draft_tokens), line.speed_up))
    for i, (name, points) in enumerate(groups.items()):
        _plot(axes, points, name, i)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set(xlabel="tokens drafted ahead", ylabel="speed-up over plain")
    axes.legend(fontsize=7)


def _plot(axes: "Axes", points: Sequence[Point], name: str, i: int) -> None:
    across, up = zip(*sorted(points), strict=True)
    axes.plot(across, up, marker=MARKS[i % len(MARKS)], markersize=5, linewidth=1.3, label=name)


def _parts(axes: "Axes", lines: Sequence[Measurement]) -> None:
    """What a token costs, and which part of a round takes it."""
    known = [line for line in lines if line.round_ms and line.target_passes]
    names = [f"{line.name}\nbatch {line.batch_size}" for line in known]
    bottom = [0.0] * len(known)
    for part in PARTS:
        heights = [_per_token(line, part) for line in known]
        axes.bar(range(len(known)), heights, bottom=bottom, label=part)
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    options: dict[str, Any] = {"fontsize": 7, "rotation": 40 if len(known) > 8 else 0}
    axes.set_xticks(range(len(known)), names, ha="right" if len(known) > 8 else "center", **options)
    axes.set(ylabel="ms per token", title="what a token costs, by the parts of the round")
    axes.legend(fontsize=8)


def _per_token(line: Measurement, part: str) -> float:
    """Milliseconds of a part of the rounds for each token that they gave the batch."""
    assert line.round_ms is not None  # others are left out
    assert line.target_passes is not None
    return line.round_ms[part] * line.target_passes / max(line.tokens, 1)
