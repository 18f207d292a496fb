"""The tensors of a drafter's folder, and those that it takes from its target's checkpoint."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from models.errors import UnsupportedCheckpoint
from models.store import read_tensors
from models.targets.decoder.checkpoint import tensor_files

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"  # of a target
NORM = "model.norm.weight"
OFFSETS = "d2t"  # of the ids that can be drafted to the target's


def folder_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the folder's safetensors files, by their names there.

    Raises:
        UnsupportedCheckpoint: there are none, or a file is damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UnsupportedCheckpoint(f"{folder} has no safetensors file")
    found: dict[str, torch.Tensor] = {}
    for file in files:
        found |= read_tensors(file)
    return found


def target_embedding(target: Path) -> torch.Tensor:
    """[V, D] the input embedding of a target's checkpoint."""
    return _target_tensor(target, (EMBEDDING,))


def target_head(target: Path) -> torch.Tensor:
    """[V, D] the output matrix of a target's checkpoint: its embedding if it has no other."""
    return _target_tensor(target, (HEAD, EMBEDDING))


def target_norm(target: Path) -> torch.Tensor:
    """[D] the weight of the norm before the output matrix."""
    return _target_tensor(target, (NORM,))


def ids_of(offsets: torch.Tensor | None, vocab_size: int, folder: Path) -> torch.Tensor | None:
    """[K] the target's ids of the tokens that can be drafted, from their offsets; None: all.

    Raises:
        UnsupportedCheckpoint: they are no distinct ids of the target.
    """
    if offsets is None:
        return None
    ids = offsets.long() + torch.arange(len(offsets))
    if not are_distinct(ids, vocab_size):
        told = f"offsets to distinct ids of the target's vocabulary of {vocab_size}"
        raise UnsupportedCheckpoint(f"{folder}: {OFFSETS} does not hold {told}")
    return ids


def are_distinct(ids: torch.Tensor, vocab_size: int) -> bool:
    """Whether these are distinct ids [K] of the vocabulary, at least one, in any order."""
    if ids.ndim != 1 or not len(ids):
        return False
    within = int(ids.min()) >= 0 and int(ids.max()) < vocab_size
    return within and len(ids.unique()) == len(ids)


def _target_tensor(target: Path, names: tuple[str, ...]) -> torch.Tensor:
    files = tensor_files(target)
    for name in names:
        if name in files:
            with safe_open(files[name], framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
            return tensor
    raise UnsupportedCheckpoint(
        f"target {str(target)!r} has no tensor {names[-1]}, which the drafter needs: only targets "
        "with the tensor names of Llama can give it to a drafter"
    )


def check_tensors(
    tensors: Mapping[str, torch.Tensor],
    wanted: Mapping[str, tuple[int, ...]],
    optional: Iterable[str],
    where: Path,
) -> None:
    """Raise UnsupportedCheckpoint unless names and shapes are those `wanted`."""
    left = set(optional)
    for name, shape in wanted.items():
        if name not in tensors and name not in left:
            raise UnsupportedCheckpoint(f"{where} lacks the tensor {name}")
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise UnsupportedCheckpoint(
                f"{where}: {name} is {tuple(tensors[name].shape)}, config.json makes it {shape}"
            )
    for name in tensors:
        if name not in wanted:
            raise UnsupportedCheckpoint(
                f"{where} has a tensor that does not belong there: {name}; known are "
                f"{', '.join(wanted)}"
            )
