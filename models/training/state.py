"""The state of a training on disk: weights, moments, average, best; no pickle.

    FOLDER/step-00000200/state.json            the step, and what the run must agree on
    FOLDER/step-00000200/{weights,moments,average,best}.safetensors

A folder is written under another name and renamed, so one with its final name is complete.
Tensors are whole, so a state can be continued with another number of workers.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from models.errors import UnsupportedCheckpoint
from models.training.step import Best, TrainingStep, put

STATE = "state.json"
KEPT = 2  # states


def save_state(
    folder: Path, training: TrainingStep, agreed: Mapping[str, Any], *, write: bool = True
) -> Path:
    """Write the state of the steps done so far, and remove all but the newest KEPT.

    All workers call it, as tensors may be spread over them; one of them, with `write`, writes.
    """
    place = folder / f"step-{training.done:08d}"
    files = _tensors(training)
    if not write:
        return place
    new = place.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, tensors in files.items():
        save_file({key: t.detach().contiguous() for key, t in tensors.items()}, new / _file(name))
    best = training.best and {"step": training.best.step, "score": training.best.score}
    told = {"step": training.done, "agreed": dict(agreed), "best": best}
    (new / STATE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    for file in new.iterdir():
        _sync(file)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    for old in states(folder)[:-KEPT]:
        shutil.rmtree(old)
    return place


def states(folder: Path) -> list[Path]:
    """The complete states, in the order of their steps."""
    found = folder.glob("step-*") if folder.is_dir() else []
    return sorted(path for path in found if path.suffix != ".new" and (path / STATE).exists())


def load_state(place: Path, training: TrainingStep, agreed: Mapping[str, Any]) -> None:
    """Continue from a state; with the same number of workers, to the bit.

    Raises:
        UnsupportedCheckpoint: it belongs to another training.
    """
    told = json.loads((place / STATE).read_text(encoding="utf-8"))
    if told["agreed"] != dict(agreed):
        changed = [
            k for k in {**told["agreed"], **agreed} if told["agreed"].get(k) != agreed.get(k)
        ]
        raise UnsupportedCheckpoint(f"{place} is of another training: {', '.join(changed)} differ")
    found = {name: load_file(place / _file(name)) for name in ("weights", "moments", "average")}
    training.engine.load(found["weights"], found["moments"], told["step"])
    put(training.average, found["average"])
    if told["best"] is not None:
        training.best = Best(**told["best"], weights=load_file(place / _file("best")))
    training.done = told["step"]


def _tensors(training: TrainingStep) -> dict[str, dict[str, torch.Tensor]]:
    out: dict[str, dict[str, torch.Tensor]] = {
        "weights": training.engine.weights(),
        "moments": training.engine.moments(),
        "average": dict(training.average.named_parameters()),
    }
    return out if training.best is None else out | {"best": dict(training.best.weights)}


def _file(name: str) -> str:
    return f"{name}.safetensors"


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
