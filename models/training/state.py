"""A training step as a state on disk: weights, moments, average, best.

Tensors are whole, so a state can be continued with another number of workers or ZeRO stage.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.errors import UnsupportedCheckpoint
from models.training.checkpoint import place_of, read_tensors, read_told, write_state
from models.training.step import Best, TrainingStep, put

PARTS = ("weights", "moments")  # of a further network


def save_state(
    folder: Path, training: TrainingStep, agreed: Mapping[str, Any], *, write: bool = True
) -> Path:
    """Write the state of the steps done so far; `agreed`: what continuing it must agree on.

    All workers call it, as tensors may be spread over them; one of them, with `write`, writes.
    """
    files = _tensors(training)
    if not write:
        return place_of(folder, training.done)
    best = training.best and {"step": training.best.step, "score": training.best.score}
    return write_state(folder, training.done, {"agreed": dict(agreed), "best": best}, files)


def load_state(place: Path, training: TrainingStep, agreed: Mapping[str, Any]) -> None:
    """Continue from a state; with the same number of workers, to the bit.

    Raises:
        UnsupportedCheckpoint: it belongs to another training.
    """
    told = read_told(place)
    theirs = told["agreed"]  # options that came later are None where they are not in it
    changed = [name for name in {**theirs, **agreed} if theirs.get(name) != agreed.get(name)]
    if changed:
        raise UnsupportedCheckpoint(f"{place} is of another training: {', '.join(changed)} differ")
    weights, moments = read_tensors(place, "weights"), read_tensors(place, "moments")
    training.engine.load(weights, moments, told["step"])
    for name, other in training.others.items():
        weights, moments = (read_tensors(place, f"{name}-{part}") for part in PARTS)
        other.engine.load(weights, moments, told["step"] * other.turns)
    put(training.average, read_tensors(place, "average"))
    if told["best"] is not None:
        training.best = Best(**told["best"], weights=read_tensors(place, "best"))
    training.done = told["step"]


def _tensors(training: TrainingStep) -> dict[str, Mapping[str, torch.Tensor]]:
    out: dict[str, Mapping[str, torch.Tensor]] = {
        "weights": training.engine.weights(),
        "moments": training.engine.moments(),
        "average": dict(training.average.named_parameters()),
    }
    for name, other in training.others.items():
        out[f"{name}-weights"] = other.engine.weights()
        out[f"{name}-moments"] = other.engine.moments()
    return out if training.best is None else out | {"best": training.best.weights}
