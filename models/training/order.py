"""Which record each sample of training is: a pure function of the seed and the sample's number."""

import numpy as np
import torch

from models.batch import Ints


def sample_numbers(step: int, batch: int) -> Ints:
    """[batch] the numbers of a step's samples, counted over the whole training."""
    return np.arange(step * batch, (step + 1) * batch)


def records_of(samples: Ints, *, num_records: int, seed: int) -> Ints:
    """[B] the records of samples [B]: every epoch is a permutation of its own of all records."""
    epochs, places = np.divmod(samples, num_records)
    out = np.empty_like(samples)
    for epoch in np.unique(epochs).tolist():
        now = epochs == epoch
        out[now] = _permutation(num_records, seed, epoch)[places[now]]
    return out


def share(count: int, rank: int, world: int) -> slice:
    """The part of a batch of `count` samples that worker `rank` of `world` takes."""
    return slice(count * rank // world, count * (rank + 1) // world)


def _permutation(count: int, seed: int, epoch: int) -> Ints:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order: Ints = torch.randperm(count, generator=generator).numpy()
    return order
