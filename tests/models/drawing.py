"""Random numbers by seed and absolute position."""

import numpy as np

from models.noise import Numbers, Purpose


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
