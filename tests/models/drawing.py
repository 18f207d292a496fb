"""Random numbers by seed and absolute position."""

import numpy as np
import torch

from models.compute.x86 import kernels
from models.sampling.noise import NoiseStore, Numbers, Purpose, gumbel

CPU = torch.device("cpu")


def numbers_of(seeds, positions, purpose=Purpose.TOKEN, rounds=None):
    """One row for each seed and position; `rounds`: the ends of the requests."""
    seeds, positions = np.asarray(seeds), np.asarray(positions)
    starts = np.zeros_like(positions) if rounds is None else rounds
    return Numbers(
        seeds=seeds,
        starts=starts,
        owners=np.arange(len(seeds)),
        levels=positions - starts,
        purpose=purpose,
    )


def drawn(numbers, vocab_size):
    """[R, V] Gumbel noise, drawn for this call alone."""
    draw = NoiseStore(vocab_size, CPU).draw(numbers)
    return gumbel(numbers.keys(), vocab_size, CPU) if draw is None else kernels.gumbel(draw)
