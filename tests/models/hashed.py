"""Weights made from integers by products alone: the same on every machine."""

import math
import zlib

import numpy as np
import torch

from models.sampling.noise import Purpose, row_keys, uniform


def hashed(name, shape, gain=5.0):
    """A weight that depends on its name, uniform; matrices so that they keep the order of size."""
    size = math.prod(shape)
    seeds = np.full(size, zlib.crc32(name.encode()), dtype=np.int64)
    drawn = uniform(row_keys(seeds, np.arange(size), Purpose.START)) - 0.5
    if name.endswith("norm.weight"):
        drawn = 1 + 0.25 * drawn
    elif len(shape) > 1 and "embed" not in name:
        drawn *= gain / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(drawn.astype(np.float32)).view(shape)
