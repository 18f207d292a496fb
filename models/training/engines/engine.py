"""What holds a model's weights and moments during a training, on one of several workers."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn


class Engine(Protocol):
    """All workers call the same methods in the same order.

    Tensors of `weights`, `moments` and `load` are whole, in float32, and the same for every way to
    spread them over workers. So a state does not depend on the engine that wrote it.
    """

    @property
    def model(self) -> nn.Module:
        """What is called to compute the loss."""

    @property
    def accumulate(self) -> int:
        """The number of parts in which a worker takes its share of a batch."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of one part of the step's loss; once for each part."""

    def step(self, rate: float) -> float:
        """Change the weights after all parts; returns the gradient's norm, before clipping."""

    def weights(self) -> dict[str, torch.Tensor]:
        """Parameters by name. They may change with the next step: copy what is kept."""

    def moments(self) -> dict[str, torch.Tensor]:
        """AdamW's moments: {"NAME/exp_avg", "NAME/exp_avg_sq"}."""

    def load(
        self, weights: Mapping[str, torch.Tensor], moments: Mapping[str, torch.Tensor], step: int
    ) -> None:
        """Continue with these after `step` steps."""
