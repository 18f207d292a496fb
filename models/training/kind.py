"""What a kind of training provides, a student or a drafter. The machinery knows nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from models.batch import Ints

LOSS = "loss"  # the figure of a batch that is lowered
SCORE = "score"  # the figure of an exam that chooses the best state: the higher, the better


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A part of a step's samples.

    `numbers` [B]: counted over the whole training; all randomness of a sample depends on its number
    and the seed. `records` [B]: the numbers of the records that they are.
    """

    numbers: Ints
    records: Ints

    def __getitem__(self, some: slice) -> "Samples":
        return Samples(numbers=self.numbers[some], records=self.records[some])


class Kind(Protocol):
    """A model to train, already started from its target, with its records and its loss.

    A step's loss is the sum of `losses` over all its samples, divided by the sum of `weight`. So it
    does not depend on how samples are shared among workers and parts of a batch.
    """

    @property
    def model(self) -> nn.Module:
        """What is trained. Its random start depends on the seed alone: all workers have it."""

    @property
    def num_records(self) -> int:
        """The records to learn from."""

    def weight(self, samples: Samples) -> float:
        """The weight of samples in the loss, from the records alone, such as their places."""

    def losses(self, model: nn.Module, samples: Samples) -> Mapping[str, torch.Tensor]:
        """Weighted sums over the samples: scalars by name.

        LOSS has a gradient and is lowered; other names are figures that are only reported.
        `model` is called in place of `self.model`.
        """

    def exam(self, model: nn.Module) -> Mapping[str, float]:
        """Figures of a state on held-out records, SCORE among them; empty if there is no exam.

        `model`: the average of the weights, or the start.
        """

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write the trained model as a checkpoint that says its target."""
