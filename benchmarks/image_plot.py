"""The image benchmark as a picture: accepted length over windows, speed-up over batch sizes."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Lines = Sequence[Mapping[str, Any]]
PANELS = ("batch-1", "batch-8", "batch-64", "guided-64")


def draw(sections: Mapping[str, Lines]) -> bytes:
    """A PNG from the sections' measurements."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [name for name in PANELS if name in sections] or list(sections)[:1]
    figure = Figure(figsize=(3.6 * len(shown) + 1.6, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(shown), squeeze=False, sharey="row", sharex=True)
    for column, name in enumerate(shown):
        _panel(axes[0][column], sections[name], "accepted_length")
        _panel(axes[1][column], sections[name], "speed_up")
        axes[0][column].set_title(name.replace("-", ", batch ").removeprefix("batch, "))
        axes[1][column].set_xlabel("window")
    axes[0][0].set_ylabel("tokens per target pass")
    axes[1][0].set_ylabel("images/s over sequential decoding")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _panel(axes: "Axes", lines: Lines, value: str) -> None:
    """A stroke per decoder over its windows; sequential decoding is 1."""
    strokes: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        decoder, comma, window = str(line["name"]).rpartition(", ")
        if comma and window.isdecimal():
            strokes.setdefault(decoder, []).append((int(window), float(line[value])))
    for decoder, points in strokes.items():
        across, up = zip(*sorted(points), strict=True)
        axes.plot(across, up, marker="o", label=decoder)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_ylim(0, None)
    windows = sorted({window for points in strokes.values() for window, _ in points})
    axes.set_xticks(windows, [str(window) for window in windows])
