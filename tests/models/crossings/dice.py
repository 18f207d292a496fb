"""Draws from a seeded generator."""

from typing import Any

import numpy as np


def pick(rng: np.random.Generator, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]
