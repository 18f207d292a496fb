"""Loads a rank's part of a transformers model, split by the plan that transformers has for it."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from models.errors import UnsupportedCheckpoint
from models.targets.adapted.load import from_transformers, require_causal
from models.targets.decoder.checkpoint import open_file, tensor_files
from models.targets.decoder.config import Json
from models.targets.split.group import Group, share_of
from models.targets.split.styles import STYLES, Style, split_module

BIAS = "bias"


class Plan:
    """The styles of a model's modules, and what its tensors look like where they are whole."""

    def __init__(self, model: Any, path: Path, files: Mapping[str, Path]) -> None:
        """`model`: not split yet; its tensors need no data. `files`: of the checkpoint's tensors.

        Raises UnsupportedCheckpoint if a tensor that has to be split is not among them: then the
        checkpoint has other names than the model.
        """
        self.shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        self.num_parameters = sum(math.prod(shape) for shape in self.shapes.values())
        self.styles = _styles(model)
        for name in set(self.shapes).difference(files):
            style = self.style_of(name)
            if style is not None and not style.apart:
                told = f"{path} has no tensor {name}: only under transformers' names it is split"
                raise UnsupportedCheckpoint(told)
            self.styles.pop(_module_of(name), None)
        _tie(self.styles, model)

    def style_of(self, tensor: str) -> Style | None:
        """How a parameter is split; None: it is whole on every rank."""
        return self.styles.get(_module_of(tensor))


def load_part(path: Path, raw: Json, group: Group, *, dtype: torch.dtype) -> tuple[Any, int]:
    """transformers' model of a checkpoint with this rank's part of it, on the CPU.

    Reads no more of the split tensors than the part. Returns the number of the whole's parameters,
    too. Raises UnsupportedCheckpoint as `load_adapted` and `Plan` do.
    """
    require_causal(path, raw)
    config = transformers.AutoConfig.from_pretrained(
        path, trust_remote_code=False, local_files_only=True
    )
    whole: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    files = tensor_files(path)
    with torch.device("meta"):
        plan = Plan(whole(config), path, files)
    tensors = {name: _read_part(file, name, plan, group) for name, file in files.items()}

    def build(model: Any, *arguments: Any, **options: Any) -> None:
        whole.__init__(model, *arguments, **options)
        for name, style in plan.styles.items():
            split_module(model.get_submodule(name), style, group)

    of = type(whole.__name__, (whole,), {"__init__": build, "__module__": whole.__module__})
    model = from_transformers(of, path, dtype=dtype, config=config, state_dict=tensors)
    return model, plan.num_parameters


def _module_of(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _styles(model: Any) -> dict[str, Style]:
    """By the names of the modules that the model's plan splits."""
    found: dict[str, Style] = {}
    for name, _ in model.named_modules():
        style = STYLES.get(model.tp_plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", name), "replicate"))
        if style is not None:
            found[name] = style
    return found


def _tie(styles: dict[str, Style], model: Any) -> None:
    """A head whose matrix is the embedding stays whole if that does, and the other way round."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not table.weight:
        return
    pair = [name for name, module in model.named_modules() if module in (table, head)]
    if not all(name in styles for name in pair):
        for name in pair:
            styles.pop(name, None)


def _read_part(file: Path, name: str, plan: Plan, group: Group) -> torch.Tensor:
    style = plan.style_of(name)
    with open_file(file) as opened:
        if style is None or name not in plan.shapes:
            whole: torch.Tensor = opened.get_tensor(name)
            return whole
        found = opened.get_slice(name)
        shape = tuple(found.get_shape())
        if shape != plan.shapes[name]:
            told = f"config.json makes it {plan.shapes[name]}"
            raise UnsupportedCheckpoint(f"{file}: {name} is {shape}, {told}")
        if name.endswith(BIAS) and not style.bias:
            bias: torch.Tensor = opened.get_tensor(name)
            return bias if group.rank == 0 else torch.zeros_like(bias)
        dim = 0 if name.endswith(BIAS) else style.dim
        own = share_of(shape[dim], group.rank, group.size)
        cut = slice(own.start, own.stop)
        part: torch.Tensor = found[cut] if dim == 0 else found[:, cut]
        return part
