"""Medusa heads as they are stored: head k predicts token t + 2 + k from the state after token t.

A head is residual blocks, x + SiLU(W x + b), and an output matrix: its own, or the target's.
Source: Medusa, Cai et al. 2024, arXiv 2401.10774. Tensor names are vLLM's; the original's are read.
Letters: D width of the target, V vocabulary, K tokens that can be drafted.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.drafting.folder_kind import refuse_pickles
from models.drafting.heads.files import (
    are_distinct,
    check_tensors,
    folder_tensors,
    target_head,
)
from models.errors import UnsupportedCheckpoint
from models.targets.decoder.config import Json, read_json

TOKEN_MAP, SHARED = "token_map", "lm_head.weight"
RESIDUAL, OUTPUT = re.compile(r"(\d+)\.(\d+)\.linear\.(.+)"), re.compile(r"(\d+)\.\d+\.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class MedusaConfig:
    """Sizes: `num_heads` tokens ahead, `num_layers` blocks each. `shared`: one output matrix."""

    vocab_size: int
    width: int
    num_heads: int
    num_layers: int = 1
    biased: bool = True
    shared: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MedusaHead:
    """Configuration and tensors, by the names of `shapes`; `ids` [K]: the target's ids, or all."""

    config: MedusaConfig
    tensors: dict[str, torch.Tensor]
    ids: torch.Tensor | None = None


def block(head: int, layer: int, kind: str = "weight") -> str:
    """The name of a residual block's tensor."""
    return f"blocks.{head}.layers.{layer}.{kind}"


def output(head: int) -> str:
    """The name of a head's own output matrix."""
    return f"lm_heads.{head}.weight"


def shapes(config: MedusaConfig, drafted: int | None = None) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors; `drafted`: K, where it is not the whole vocabulary."""
    wanted: dict[str, tuple[int, ...]] = {}
    width, rows = config.width, drafted or config.vocab_size
    for head in range(config.num_heads):
        for layer in range(config.num_layers):
            wanted[block(head, layer)] = (width, width)
            if config.biased:
                wanted[block(head, layer, "bias")] = (width,)
        if not config.shared:
            wanted[output(head)] = (rows, width)
    if config.shared:
        wanted[SHARED] = (rows, width)
    return wanted


def read_medusa(folder: Path, target: Path) -> MedusaHead:
    """The heads in a folder, for the target in another one.

    Output matrices that the folder leaves out are the target's own.

    Raises:
        UnsupportedCheckpoint: the heads are a pickle, or a field or tensor is missing or wrong.
    """
    refuse_pickles(folder)
    raw, about = read_json(folder / "config.json"), read_json(target / "config.json")
    tensors = {_name(name): tensor for name, tensor in folder_tensors(folder).items()}
    stored = tensors.pop(TOKEN_MAP, None)
    ids = None if stored is None else stored.long()
    config = _config(raw, about, tensors, folder)
    for name in ("hidden_size", "vocab_size"):
        made_for = {"hidden_size": config.width, "vocab_size": config.vocab_size}[name]
        if about.get(name) not in (None, made_for):
            raise UnsupportedCheckpoint(
                f"drafter {str(folder)!r} is made for a target with {name}={made_for}; "
                f"that of {str(target)!r} is {about[name]}"
            )
    if ids is not None and not are_distinct(ids, config.vocab_size):
        told = f"distinct ids of the target's vocabulary of {config.vocab_size}"
        raise UnsupportedCheckpoint(f"{folder}: {TOKEN_MAP} does not hold {told}")
    if config.shared and SHARED not in tensors:
        head = target_head(target)
        tensors[SHARED] = head if ids is None else head[ids]
    check_tensors(tensors, shapes(config, None if ids is None else len(ids)), (), folder)
    return MedusaHead(config=config, tensors=tensors, ids=ids)


def write_medusa(head: MedusaHead, folder: Path) -> None:
    """Write a folder with vLLM's names; a shared output matrix is written, too."""
    folder.mkdir(parents=True, exist_ok=True)
    config = head.config
    drafted = config.vocab_size if head.ids is None else len(head.ids)
    told = {
        "model_type": "medusa",
        "architectures": ["MedusaModel"],
        "hidden_size": config.width,
        "vocab_size": config.vocab_size,
        "truncated_vocab_size": drafted,
        "num_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "medusa_fc_bias": config.biased,
        "original_lm_head": config.shared,
    }
    (folder / "config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    tensors = dict(head.tensors)
    if config.shared:
        tensors[output(0)] = tensors.pop(SHARED)  # where vLLM looks for it
    if head.ids is not None:
        tensors[TOKEN_MAP] = head.ids
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def _name(name: str) -> str:
    """vLLM's name for a tensor of the original or of vLLM."""
    name = name.removeprefix("medusa_heads.").removeprefix("medusa_head.")
    found = RESIDUAL.fullmatch(name)
    if found:
        return block(int(found[1]), int(found[2]), found[3])
    found = OUTPUT.fullmatch(name)
    return output(int(found[1])) if found else name


def _config(
    raw: Json, target: Json, tensors: dict[str, torch.Tensor], folder: Path
) -> MedusaConfig:
    if block(0, 0) not in tensors:
        raise UnsupportedCheckpoint(
            f"{folder} lacks the tensor {block(0, 0)} (or 0.0.linear.weight)"
        )
    heads = sum(block(head, 0) in tensors for head in range(len(tensors)))
    told = raw.get("num_heads", raw.get("medusa_num_heads", heads))
    if told > heads:
        raise UnsupportedCheckpoint(f"{folder}: config.json tells {told} heads, {heads} are there")
    layers = sum(block(0, layer) in tensors for layer in range(len(tensors)))
    width = tensors[block(0, 0)].shape[0]
    shared = output(1) not in tensors and (bool(raw.get("original_lm_head")) or told > 1)
    shared = shared or output(0) not in tensors
    if shared and output(0) in tensors:
        tensors[SHARED] = tensors.pop(output(0))
    for name in [n for n in tensors if _head_of(n) >= told]:
        del tensors[name]  # more heads than are used
    return MedusaConfig(
        vocab_size=int(raw.get("vocab_size") or target.get("vocab_size") or 0),
        width=width,
        num_heads=told,
        num_layers=layers,
        biased=block(0, 0, "bias") in tensors,
        shared=shared,
    )


def _head_of(name: str) -> int:
    found = re.match(r"(?:blocks|lm_heads)\.(\d+)\.", name)
    return int(found[1]) if found else -1
