"""A run as pictures: the curves of its training, and images of each way side by side."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cluster.storage import storage
from models.training.log import read_lines
from pipelines.distill.records import files_of
from pipelines.output.contact_sheet import first_pictures, sheet

COLUMNS = 20
SMOOTH = 20  # steps


def draw_curves(metrics: Path, out: Path) -> None:
    """A PNG of loss and learning rate by step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_lines(metrics)
    steps = [line["step"] for line in lines]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    losses = np.array([line["loss"] for line in lines])
    left, right = figure.subplots(1, 2)
    left.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=0.8)
    left.plot(steps[len(steps) - len(_smooth(losses)) :], _smooth(losses), color="tab:blue")
    left.set(xlabel="step", ylabel="loss of a place", yscale="log")
    right.plot(steps, [line["rate"] for line in lines], color="tab:grey")
    right.set(xlabel="step", ylabel="learning rate")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    storage.publish(str(out), data.getvalue())


def draw_sheet(ways: Mapping[str, Path], out: Path) -> None:
    """A PNG with a line of images for each way of sampling."""
    lines = [
        first_pictures(files_of(folder), str(folder), "image", count=COLUMNS)
        for folder in ways.values()
    ]
    storage.publish(str(out), sheet(lines, list(ways)))


def _smooth(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    """Means over SMOOTH steps."""
    size = min(SMOOTH, len(values))
    return [float(mean) for mean in np.convolve(values, np.ones(size) / size, mode="valid")]
