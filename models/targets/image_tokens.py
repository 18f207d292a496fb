"""Whether the tokens of two image models mean the same pictures. Reads no weights but the codes.

Loads torch only for images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import UnsupportedCheckpoint
from models.targets.decoder.config import DecoderConfig, is_known, parse_config, read_configs

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What an image model's tokens are: classes, then codes in the places of a grid."""

    vocab_size: int
    num_classes: int
    width: int
    num_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.num_classes} classes and {self.num_tokens} tokens of {self.vocab_size} codes "
            f"in rows of {self.width}"
        )


def same_images(target: str, draft: str) -> None:
    """Refuse a draft model of other classes, another grid or other codes than the target's.

    Codes are compared where both checkpoints have them. Does nothing for two text models.

    Raises:
        UnsupportedCheckpoint: the message names both models and what differs.
    """
    ours, theirs = grid_of(target), grid_of(draft)
    if ours == theirs and (ours is None or _same_codes(target, draft)):
        return
    if theirs is None or ours is None:
        whose, other = (target, draft) if theirs is None else (draft, target)
        told = f"{whose!r} generates images token by token, {other!r} does not"
    elif ours == theirs:
        told = "their codebooks differ, so their tokens stand for other pictures"
    else:
        told = f"the draft has {theirs}, the target {ours}"
    raise UnsupportedCheckpoint(f"draft {draft!r} does not fit target {target!r}: {told}")


def grid_of(folder: str) -> Grid | None:
    """What a checkpoint's tokens are; None if it generates no images token by token."""
    config = _config(folder)
    if config is None or config.grid is None:
        return None
    return Grid(
        vocab_size=config.vocab_size,
        num_classes=config.grid.num_classes,
        width=config.rotary.row_length,
        num_tokens=config.context_length - 1,  # the class is one more
    )


def _config(folder: str) -> DecoderConfig | None:
    raw, generation = read_configs(Path(folder))
    return parse_config(raw, generation) if is_known(raw) else None


def _same_codes(target: str, draft: str) -> bool:
    import torch

    ours, theirs = _codes(target), _codes(draft)
    return ours is None or theirs is None or torch.equal(ours, theirs)


def _codes(folder: str) -> "torch.Tensor | None":
    """[V, C] the codebook that an image model reads its tokens by; None if it has none."""
    from safetensors import safe_open

    from models.targets.decoder.checkpoint import tensor_files
    from models.targets.decoder.inputs import CODEBOOK

    file = tensor_files(Path(folder)).get(CODEBOOK)
    if file is None:
        return None
    with safe_open(file, framework="pt") as tensors:
        codes: torch.Tensor = tensors.get_tensor(CODEBOOK)
    return codes.float()
