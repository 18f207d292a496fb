"""The curves of a training as a picture."""

import io
from pathlib import Path

import numpy as np

from cluster.storage import storage
from models.training.log import read_lines

CURVES = "curves.png"
SMOOTH = 20  # steps


def draw_curves(metrics: Path, out: Path, *, loss: str, log_scale: bool) -> None:
    """A PNG of loss and learning rate by step. `loss`: what the loss is of, for its axis."""
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
    left.set(xlabel="step", ylabel=f"loss of {loss}", yscale="log" if log_scale else "linear")
    right.plot(steps, [line["rate"] for line in lines], color="tab:grey")
    right.set(xlabel="step", ylabel="learning rate")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    storage.publish(str(out), data.getvalue())


def _smooth(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    """Means over SMOOTH steps."""
    size = min(SMOOTH, len(values))
    return [float(mean) for mean in np.convolve(values, np.ones(size) / size, mode="valid")]
