"""States of a training on disk, each a folder of safetensors and a JSON file; no pickle.

    FOLDER/step-00000200/state.json
    FOLDER/step-00000200/NAME.safetensors

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

STATE = "state.json"
KEPT = 2  # states
Files = Mapping[str, Mapping[str, torch.Tensor]]


def write_state(folder: Path, step: int, told: Mapping[str, Any], files: Files) -> Path:
    """Write a state after `step` steps, and remove all but the newest KEPT."""
    place = place_of(folder, step)
    new = place.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, tensors in files.items():
        ready = {key: tensor.detach().contiguous().cpu() for key, tensor in tensors.items()}
        save_file(ready, new / f"{name}.safetensors")
    text = json.dumps({"step": step, **told}, indent=1) + "\n"
    (new / STATE).write_text(text, encoding="utf-8")
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


def place_of(folder: Path, step: int) -> Path:
    """Where the state after `step` steps is."""
    return folder / f"step-{step:08d}"


def read_told(place: Path) -> dict[str, Any]:
    """What a state says of itself, `step` among it."""
    told: dict[str, Any] = json.loads((place / STATE).read_text(encoding="utf-8"))
    return told


def read_tensors(place: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of one of a state's files."""
    found: dict[str, torch.Tensor] = load_file(place / f"{name}.safetensors")
    return found


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
