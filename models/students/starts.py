"""How many tokens of an image the student knows, by sample, and which places they have."""

from collections.abc import Sequence

import numpy as np
import torch

from models.batch import Ints
from models.sampling.noise import Purpose, row_keys, uniform


def starts_of(samples: Ints, seed: int, bounds: Sequence[int]) -> torch.Tensor:
    """[B] how many tokens each sample's student knows: none for half, else one of `bounds`."""
    chance = uniform(row_keys(np.full(len(samples), seed), samples, Purpose.TRAINING))
    which = np.floor((2 * chance - 1) * len(bounds)).astype(np.int64)
    some = np.array([0, *bounds])[1 + np.where(chance < 0.5, -1, which)]
    return torch.from_numpy(some)


def known_places(starts: torch.Tensor, count: int) -> torch.Tensor:
    """[B, count] bool: the places whose tokens are known; `starts` [B] how many they are."""
    return torch.arange(count, device=starts.device) < starts[:, None]
