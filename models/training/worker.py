"""One of several training processes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of `world` workers; `add` sums a tensor over all workers, in place."""

    rank: int = 0
    world: int = 1
    add: Callable[[torch.Tensor], None] = lambda tensor: None
