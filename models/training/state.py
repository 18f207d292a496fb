"""The state of a student's training on disk: weights, moments, average; no pickle.

    FOLDER/step-00000200/state.json            the step, and what the run must agree on
    FOLDER/step-00000200/{weights,moments,average}.safetensors

A folder is written under another name and renamed, so one with its final name is complete.
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
from models.training.student_step import StudentStep

STATE = "state.json"
KEPT = 2  # states


def save_state(folder: Path, training: StudentStep, agreed: Mapping[str, Any]) -> Path:
    """Write the state of the steps done so far, and remove all but the newest KEPT."""
    place = folder / f"step-{training.done:08d}"
    new = place.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, tensors in _tensors(training).items():
        save_file({key: t.detach().contiguous() for key, t in tensors.items()}, new / _file(name))
    told = {"step": training.done, "agreed": dict(agreed)}
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


def load_state(place: Path, training: StudentStep, agreed: Mapping[str, Any]) -> None:
    """Continue from a state, to the bit.

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
    training.student.load_state_dict(found["weights"])
    training.average.load_state_dict(found["average"])
    optimiser, state = training.optimiser, dict[torch.Tensor, dict[str, torch.Tensor]]()
    for name, weight in training.student.named_parameters():
        keys = [key for key in found["moments"] if key.rpartition("/")[0] == name]
        state[weight] = {key.rpartition("/")[2]: found["moments"][key] for key in keys}
    optimiser.state.clear()
    optimiser.state.update(state)
    training.done = told["step"]


def _tensors(training: StudentStep) -> dict[str, dict[str, torch.Tensor]]:
    moments = {
        f"{name}/{key}": value
        for name, weight in training.student.named_parameters()
        for key, value in training.optimiser.state[weight].items()
    }
    return {
        "weights": training.student.state_dict(),
        "moments": moments,
        "average": training.average.state_dict(),
    }


def _file(name: str) -> str:
    return f"{name}.safetensors"


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
