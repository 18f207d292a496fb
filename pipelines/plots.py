"""Measurements as a picture: tokens/s and round cost, over batch size and over draft size."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.measurement import PARTS, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Callable[[Measurement], float]
Point = tuple[float, float]
MARKS, STROKES = "osD^v<>PX*", ("-", "--", ":", "-.")
MANY = 8  # bars with names side by side


def draw(lines: Sequence[Measurement]) -> bytes:
    """A PNG. Without drafts of a fixed size there is no panel over draft size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sized = any(line.recipe and line.recipe.is_fixed for line in lines)
    figure = Figure(figsize=(16 if sized else 12, 9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3 if sized else 2)
    speed = figure.add_subplot(grid[0, 0])
    _over_batch(speed, lines, lambda line: line.tokens_per_second, "tokens/s")
    _over_batch(figure.add_subplot(grid[0, 1]), lines, _round_ms, "ms per round")
    if sized:
        _over_size(figure.add_subplot(grid[0, 2]), lines)
    _parts(figure.add_subplot(grid[1, :]), lines)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _round_ms(line: Measurement) -> float:
    return (line.round_ms or {}).get("round", float("nan"))


def _over_batch(axes: "Axes", lines: Sequence[Measurement], value: Value, label: str) -> None:
    """One stroke per recipe, all in the same colours in each such panel."""
    sizes = sorted({line.batch_size for line in lines})
    for i, name in enumerate(dict.fromkeys(line.name for line in lines)):
        points = sorted((line.batch_size, value(line)) for line in lines if line.name == name)
        _plot(axes, points, i, "-", label=name)
    axes.set(xlabel="batch size", ylabel=label, ylim=(0, None))
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()


def _over_size(axes: "Axes", lines: Sequence[Measurement]) -> None:
    """Speed-up over drafted tokens (0: plain); a colour per drafter, a stroke per batch size."""
    sizes = sorted({line.batch_size for line in lines})
    groups: dict[str, dict[int, list[Point]]] = {}
    for line in lines:
        recipe = line.recipe
        if recipe is not None and recipe.is_fixed:
            width = "" if recipe.draft_width == 1 else f", {recipe.draft_width} wide"
            group = groups.setdefault(f"{line.name.replace(recipe.size, '').strip()}{width}", {})
            points = group.setdefault(line.batch_size, [(0.0, 1.0)])
            points.append((float(recipe.draft_tokens), line.speed_up))
    for i, (name, group) in enumerate(groups.items()):
        for batch_size, points in group.items():
            stroke = STROKES[sizes.index(batch_size) % len(STROKES)]
            _plot(axes, sorted(points), i, stroke, label=f"{name}, batch {batch_size}")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set(xlabel="tokens drafted ahead", ylabel="speed-up over plain at the same batch size")
    axes.legend(
        fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, handlelength=3
    )


def _plot(axes: "Axes", points: Sequence[Point], i: int, stroke: str, *, label: str) -> None:
    from matplotlib import colormaps

    across, up = zip(*points, strict=True)
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]  # dark ones, then light ones
    colour = colours[(2 * i) % 20 + (i // 10) % 2]
    mark = MARKS[i % len(MARKS)]
    axes.plot(across, up, marker=mark, linestyle=stroke, color=colour, label=label, markersize=5)


def _parts(axes: "Axes", lines: Sequence[Measurement]) -> None:
    """What a token costs, against plain at the same batch size, and which part takes it."""
    known = [line for line in lines if line.round_ms and line.target_passes]
    steps: dict[int, float] = {}
    for line in known:
        steps.setdefault(line.batch_size, sum(_per_token(line, part) for part in PARTS))
    bottom = [0.0] * len(known)
    for part in PARTS:
        heights = [_per_token(line, part) / steps[line.batch_size] for line in known]
        axes.bar(range(len(known)), heights, bottom=bottom, label=part)
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    axes.axhline(1.0, color="grey", linewidth=0.8)
    options: dict[str, Any] = {"fontsize": 7}
    if len(known) > MANY:
        options |= {"rotation": 40, "ha": "right"}
    names = [f"{line.name}, batch {line.batch_size}" for line in known]
    axes.set_xticks(range(len(known)), names, **options)
    axes.set(ylabel="time per token, by part of the round (plain = 1)")
    axes.legend(fontsize=8)


def _per_token(line: Measurement, part: str) -> float:
    """Milliseconds of a part of the rounds for each token that they gave the batch."""
    assert line.round_ms is not None  # others are left out
    assert line.target_passes is not None
    return line.round_ms[part] * line.target_passes / max(line.tokens, 1)
