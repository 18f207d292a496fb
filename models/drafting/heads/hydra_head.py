"""Hydra heads as they are stored: like Medusa's, but head k reads the tokens drafted before it.

From the target's state after token t and the embeddings of tokens t + 1 to t + 1 + k, head k
predicts token t + 2 + k: x + SiLU(W [x; e_1; ...] + b), then the target's own output matrix.
Source: Hydra, Ankner et al. 2024, arXiv 2402.05109. The layout is ours; no server has one.
Letters: D width of the target, E width of the embedding, V vocabulary, K tokens that can
be drafted.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.drafting.folder_kind import HYDRA
from models.drafting.heads.files import (
    OFFSETS,
    check_tensors,
    folder_tensors,
    ids_of,
    target_head,
)
from models.errors import UnsupportedCheckpoint
from models.targets.decoder.config import read_json

EMBEDDING = "embed_tokens.weight"
SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "width",
    "embedding_size": "embedded",
    "num_heads": "num_heads",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HydraConfig:
    """Sizes: `num_heads` tokens ahead; `embedded`: the width of the tokens' own embedding."""

    vocab_size: int
    width: int
    embedded: int
    num_heads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HydraHead:
    """Configuration, tensors by the names of `shapes`, and the target's output matrix [V, D].

    `ids` [K]: the target's ids of the tokens that can be drafted, whose rows `output` holds; None:
    all.
    """

    config: HydraConfig
    tensors: dict[str, torch.Tensor]
    output: torch.Tensor
    ids: torch.Tensor | None = None


def mix(head: int, kind: str = "weight") -> str:
    """The name of a head's tensor."""
    return f"heads.{head}.{kind}"


def shapes(config: HydraConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of all stored tensors."""
    wanted: dict[str, tuple[int, ...]] = {EMBEDDING: (config.vocab_size, config.embedded)}
    for head in range(config.num_heads):
        wanted[mix(head)] = (config.width, config.width + (head + 1) * config.embedded)
        wanted[mix(head, "bias")] = (config.width,)
    return wanted


def read_hydra(folder: Path, target: Path) -> HydraHead:
    """The heads in a folder, for the target in another one.

    Raises:
        UnsupportedCheckpoint: a field or tensor is missing or wrong, or the target is another one.
    """
    raw = read_json(folder / "config.json")
    sizes = {}
    for name, field in SIZES.items():
        value = raw.get(name)
        if not isinstance(value, int) or value < 1:
            told = f"{name}={value!r} is not accepted: a whole number from 1 on"
            raise UnsupportedCheckpoint(f"{folder}/config.json: {told}")
        sizes[field] = value
    config, tensors = HydraConfig(**sizes), folder_tensors(folder)
    ids = ids_of(tensors.pop(OFFSETS, None), config.vocab_size, folder)
    check_tensors(tensors, shapes(config), (), folder)
    output = target_head(target)
    if tuple(output.shape) != (config.vocab_size, config.width):
        raise UnsupportedCheckpoint(
            f"drafter {str(folder)!r} is made for an output matrix of "
            f"{config.vocab_size} x {config.width}; that of {str(target)!r} is "
            f"{output.shape[0]} x {output.shape[1]}"
        )
    output = output if ids is None else output[ids]
    return HydraHead(config=config, tensors=tensors, output=output, ids=ids)


def write_hydra(head: HydraHead, folder: Path) -> None:
    """Write a folder; the output matrix stays the target's and is not written."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"model_type": HYDRA} | {
        name: getattr(head.config, field) for name, field in SIZES.items()
    }
    (folder / "config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    tensors = dict(head.tensors)
    if head.ids is not None:
        tensors[OFFSETS] = head.ids - torch.arange(len(head.ids))
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
