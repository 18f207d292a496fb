"""Reads and writes folders with config.json and model.safetensors. Never loads pickles."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from models.errors import UnsupportedCheckpoint
from models.targets.decoder.config import Json, read_json
from models.targets.finite import require_finite

CONFIG, TENSORS = "config.json", "model.safetensors"
T = TypeVar("T")


def write_folder(
    folder: Path, model_type: str, config: Any, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Write a checkpoint folder; `config` is a dataclass or a mapping."""
    folder.mkdir(parents=True, exist_ok=True)
    said = asdict(config) if is_dataclass(config) and not isinstance(config, type) else dict(config)
    raw = {"model_type": model_type, **said}
    (folder / CONFIG).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / TENSORS)
    (folder / TENSORS).chmod(0o644)


def model_type(folder: Path) -> str:
    """The `model_type` in config.json."""
    return str(read_json(folder / CONFIG).get("model_type"))


def read_config(folder: Path, cls: type[T]) -> T:
    """The configuration in config.json.

    Raises:
        UnsupportedCheckpoint: a field is missing, unknown or of the wrong type.
    """
    raw = {k: v for k, v in read_json(folder / CONFIG).items() if k != "model_type"}
    return from_json(cls, raw, str(folder / CONFIG))


def from_json(cls: type[T], raw: Json, where: str) -> T:
    """A dataclass from a JSON object; unknown and missing fields are errors."""
    hints = get_type_hints(cls)
    known = {found.name: found for found in fields(cls)}  # type: ignore[arg-type]
    for name in raw:
        if name not in known:
            raise UnsupportedCheckpoint(f"{where}: unknown field {name}; known: {', '.join(known)}")
    for name, found in known.items():
        required = found.default is MISSING and found.default_factory is MISSING
        if name not in raw and required:
            raise UnsupportedCheckpoint(f"{where}: {name} is missing")
    return cls(**{name: _shaped(v, hints[name], f"{where}: {name}") for name, v in raw.items()})


def _shaped(value: Any, hint: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(value, dict):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_shaped(item, get_args(hint)[0], where) for item in value)
    if hint is float and type(value) is int:
        return float(value)
    if hint in (int, float, bool, str) and type(value) is hint:
        return value
    raise UnsupportedCheckpoint(f"{where}={value!r} is of another kind than needed")


def load_weights(folder: Path, model: nn.Module) -> None:
    """Load the folder's tensors into `model`, in the dtype of the model.

    Raises:
        UnsupportedCheckpoint: a tensor is missing, unknown or of another shape.
    """
    tensors = read_tensors(folder / TENSORS)
    check_shapes(tensors, model, str(folder))
    model.load_state_dict(tensors)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file; raises UnsupportedCheckpoint if it cannot be read."""
    try:
        tensors: dict[str, torch.Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UnsupportedCheckpoint(f"{file} cannot be read as safetensors: {error}") from error
    for name, tensor in tensors.items():
        require_finite(tensor, name, file)
    return tensors


def check_shapes(tensors: Mapping[str, torch.Tensor], model: nn.Module, where: str) -> None:
    """Raise UnsupportedCheckpoint unless names and shapes match the model's state."""
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in tensors:
            raise UnsupportedCheckpoint(f"{where} lacks the tensor {name}")
        if tensors[name].shape != tensor.shape:
            raise UnsupportedCheckpoint(
                f"{where}: {name} is {tuple(tensors[name].shape)},"
                f" its config makes it {tuple(tensor.shape)}"
            )
    for name in tensors:
        if name not in wanted:
            raise UnsupportedCheckpoint(f"{where} has a tensor that does not belong there: {name}")
