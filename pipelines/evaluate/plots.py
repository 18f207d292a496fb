"""An evaluation as pictures: every figure beside its floor; samples beside the reference."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.metrics.catalogue import METRICS
from models.metrics.compare import Outcome
from pipelines.evaluate.report import is_beyond
from pipelines.evaluate.samples import Images, Samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS, MAX_LINES = 10, 10
WITHIN, BEYOND, FLOOR = "tab:blue", "tab:red", "grey"


def draw_figures(outcomes: Sequence[Outcome]) -> bytes:
    """A PNG: each figure and its floor with their intervals, each on a scale of its own."""
    lines = -(-len(outcomes) // 3)
    figure = _figure(12, 1.5 * lines + 0.4)
    for i, outcome in enumerate(outcomes):
        _draw(figure.add_subplot(lines, 3, i + 1), outcome)
    return _png(figure)


def draw_samples(samples: Samples, reference: Samples) -> bytes:
    """A PNG: rows of samples and of the reference, one line per label."""
    figure = _figure(10, 5.4)
    for i, (title, part) in enumerate((("samples", samples), ("reference", reference))):
        axes = figure.add_subplot(1, 2, i + 1)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
        axes.imshow(sheet(part), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return _png(figure)


def sheet(samples: Samples) -> Any:
    """[H, W, 3] pixels: a line of images for each label, or as they come; a margin between."""
    assert samples.images is not None
    images = samples.images
    height, width = images.shape[2] + 1, images.shape[3] + 1
    lines = _lines(samples)
    page = np.ones((len(lines) * height + 1, COLUMNS * width + 1, 3), dtype=np.float32)
    for y, rows in enumerate(lines):
        for x, row in enumerate(rows):
            picture = _coloured(images[row : row + 1])
            page[y * height + 1 : (y + 1) * height, x * width + 1 : (x + 1) * width] = picture
    return page


def _lines(samples: Samples) -> list[list[int]]:
    """The rows of each line."""
    count = samples.num_rows
    if samples.labels is None:
        every = list(range(min(count, COLUMNS * MAX_LINES)))
        return [every[i : i + COLUMNS] for i in range(0, len(every), COLUMNS)]
    labels = sorted(set(samples.labels), key=lambda text: (len(text), text))[:MAX_LINES]
    found = np.array(samples.labels)
    return [np.flatnonzero(found == label)[:COLUMNS].tolist() for label in labels]


def _coloured(images: Images) -> Images:
    """[1, C, H, W] as [H, W, 3]."""
    return np.broadcast_to(images[0].transpose(1, 2, 0), (*images.shape[2:], 3))


def _draw(axes: "Axes", outcome: Outcome) -> None:
    colour = BEYOND if is_beyond(outcome) else WITHIN
    _bar(axes, 1, outcome.value, outcome.interval, colour)
    _bar(axes, 0, outcome.floor, outcome.floor_interval, FLOOR)
    axes.set_yticks([0, 1], ["floor", "samples"], fontsize=8)
    axes.set_ylim(-0.6, 1.6)
    axes.tick_params(axis="x", labelsize=8)
    beyond = "larger" if METRICS[outcome.name].distance else "different"
    verdict = f"{beyond} (p = {outcome.p_value:.3f})" if is_beyond(outcome) else "within the floor"
    axes.set_title(f"{outcome.name}: {verdict}", fontsize=9, color=colour)


def _bar(axes: "Axes", y: int, value: float, interval: tuple[float, float], colour: str) -> None:
    axes.plot(interval, (y, y), color=colour, linewidth=3, alpha=0.5, solid_capstyle="butt")
    axes.plot([value], [y], "o", color=colour, markersize=6)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: "Figure") -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
