"""Small parts that tests register by one line each: see models/registry.py."""

import numpy as np

from models.sampling.noise import Purpose, row_keys, uniform


def quantile_map(target):
    """The inverse of the cumulative distribution, at the position's uniform number."""

    def choose(probs, seeds, positions):
        at = uniform(row_keys(seeds, positions, Purpose.TOKEN))  # [R]
        below = probs.double().cumsum(-1).cpu().numpy()  # [R, V]
        return np.array(
            [
                np.searchsorted(row, u * row[-1], side="right")
                for row, u in zip(below, at, strict=True)
            ],
            dtype=np.int64,
        )

    return choose
