"""Measurements as a picture: tokens/s and round cost, over batch size and over draft size.

A recipe has one colour and one mark, in every panel.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.bench.measurement import PARTS, Measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Callable[[Measurement], float]
Colour = tuple[float, float, float]
MARKS, STROKES = "osD^v<>PX*", ("-", "--", ":", "-.")
MANY = 8  # bars with names side by side
SHADES = (1.0, 0.8, 0.6, 0.4, 0.2)  # of a recipe's colour: the parts of a round
GREY = (0.35, 0.35, 0.35)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a recipe is drawn."""

    colour: Colour
    mark: str


def draw(lines: Sequence[Measurement]) -> bytes:
    """A PNG. Without drafts of a fixed size there is no panel over draft size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sized = any(line.recipe and line.recipe.is_fixed for line in lines)
    looks = looks_of(lines)
    figure = Figure(figsize=(16 if sized else 12, 9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3 if sized else 2)
    speed = figure.add_subplot(grid[0, 0])
    _over_batch(speed, lines, looks, lambda line: line.tokens_per_second, "tokens/s")
    _over_batch(figure.add_subplot(grid[0, 1]), lines, looks, _round_ms, "ms per round")
    if sized:
        _over_size(figure.add_subplot(grid[0, 2]), lines, looks)
    _parts(figure.add_subplot(grid[1, :]), lines, looks)
    handles, names = speed.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8, title="recipe")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def looks_of(lines: Sequence[Measurement]) -> dict[str, Look]:
    """One look for each recipe, by its name."""
    from matplotlib import colormaps

    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]  # dark and light in turn
    return {
        name: Look(colour=colours[(2 * i) % 20 + (i // 10) % 2], mark=MARKS[i % len(MARKS)])
        for i, name in enumerate(dict.fromkeys(line.name for line in lines))
    }


def _round_ms(line: Measurement) -> float:
    return (line.round_ms or {}).get("round", float("nan"))


def _over_batch(
    axes: "Axes",
    lines: Sequence[Measurement],
    looks: Mapping[str, Look],
    value: Value,
    label: str,
) -> None:
    """A stroke per recipe."""
    sizes = sorted({line.batch_size for line in lines})
    for name, look in looks.items():
        points = sorted((line.batch_size, value(line)) for line in lines if line.name == name)
        across, up = zip(*points, strict=True)
        axes.plot(across, up, marker=look.mark, color=look.colour, label=name, markersize=5)
    axes.set(xlabel="batch size", ylabel=label, ylim=(0, None))
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()


def _over_size(axes: "Axes", lines: Sequence[Measurement], looks: Mapping[str, Look]) -> None:
    """Speed-up over drafted tokens; a grey stroke joins sizes of one drafter at one batch size."""
    sizes = sorted({line.batch_size for line in lines})
    strokes = {size: STROKES[i % len(STROKES)] for i, size in enumerate(sizes)}
    for (_, batch_size), group in _series(lines).items():
        points = sorted((_drafted(line), line.speed_up) for line in group)
        across, up = zip(*points, strict=True)
        axes.plot(across, up, linestyle=strokes[batch_size], color=GREY, linewidth=0.8, zorder=1)
        for line in group:
            look = looks[line.name]
            axes.plot(_drafted(line), line.speed_up, marker=look.mark, color=look.colour)
    for size in sizes:
        axes.plot([], [], linestyle=strokes[size], color=GREY, label=f"batch {size}")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    drafted = sorted({round(_drafted(line)) for group in _series(lines).values() for line in group})
    axes.set_xticks(drafted)
    axes.set(xlabel="tokens drafted ahead", ylabel="speed-up over plain at the same batch size")
    axes.legend(fontsize=7)


def _series(lines: Sequence[Measurement]) -> dict[tuple[str, int], list[Measurement]]:
    """Drafts of a fixed size, by what they share: the drafter, the width, the batch size."""
    groups: dict[tuple[str, int], list[Measurement]] = {}
    for line in lines:
        recipe = line.recipe
        if recipe is not None and recipe.is_fixed:
            shared = f"{recipe.drafter} {recipe.draft_width} {recipe.draft_nodes} {recipe.verify}"
            groups.setdefault((shared, line.batch_size), []).append(line)
    return groups


def _drafted(line: Measurement) -> float:
    assert line.recipe is not None  # others are left out
    return float(line.recipe.draft_tokens)


def _parts(axes: "Axes", lines: Sequence[Measurement], looks: Mapping[str, Look]) -> None:
    """What a token costs, against plain at the same batch size; a shade per part of the round."""
    known = [line for line in lines if line.round_ms and line.target_passes]
    steps: dict[int, float] = {}
    for line in known:
        steps.setdefault(line.batch_size, sum(_per_token(line, part) for part in PARTS))
    bottom = [0.0] * len(known)
    for part, shade in zip(PARTS, SHADES, strict=True):
        heights = [_per_token(line, part) / steps[line.batch_size] for line in known]
        colours = [_shaded(looks[line.name].colour, shade) for line in known]
        bars: dict[str, Any] = {
            "bottom": bottom,
            "color": colours,
            "edgecolor": GREY,
            "linewidth": 0.4,
        }
        axes.bar(range(len(known)), heights, **bars)
        axes.bar([0], [0], color=[_shaded(GREY, shade)], label=part)
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    axes.axhline(1.0, color="grey", linewidth=0.8)
    options: dict[str, Any] = {"fontsize": 7}
    if len(known) > MANY:
        options |= {"rotation": 40, "ha": "right"}
    names = [f"{line.name}, batch {line.batch_size}" for line in known]
    axes.set_xticks(range(len(known)), names, **options)
    axes.set(ylabel="time per token, by part of the round (plain = 1)")
    axes.legend(fontsize=8, title="part, by shade", reverse=True)


def _shaded(colour: Colour, shade: float) -> Colour:
    """Mixed with white."""
    red, green, blue = (1 - shade * (1 - part) for part in colour)
    return red, green, blue


def _per_token(line: Measurement, part: str) -> float:
    """Milliseconds of a part of the rounds for each token that they gave the batch."""
    assert line.round_ms is not None  # others are left out
    assert line.target_passes is not None
    return line.round_ms[part] * line.target_passes / max(line.tokens, 1)
