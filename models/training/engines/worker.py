"""One of several training processes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of `world` workers; `add` sums a tensor over all workers, in place.

    `device`: where networks and batches are. Records and saved states are in the CPU's memory.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    add: Callable[[torch.Tensor], None] = lambda tensor: None
