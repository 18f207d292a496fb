"""A training of two networks in turns, each with moments of its own.

In every step the second network takes `turns` steps, then the model takes one, on the same samples.
The second network's learning rate is AHEAD times the model's.
"""

from collections.abc import Mapping
from functools import partial
from typing import Protocol, TypeGuard

import torch
from torch import nn

from models.training.engines.replicas import Replicas
from models.training.engines.worker import Worker
from models.training.kind import LOSS, Kind, Samples
from models.training.step import EngineMaker, Other, TrainingPlan, TrainingStep

AHEAD = 5.0  # the second network's rate, relative to the model's, so that it keeps up
SECOND = "second"  # of its files in a state, and of its figures


class AlternatingKind(Kind, Protocol):
    """A kind with a second network, which learns beside the model and is not exported."""

    turns: int

    @property
    def second(self) -> nn.Module:
        """The second network; its random start depends on the seed alone."""

    def second_losses(
        self, model: nn.Module, samples: Samples, turn: int
    ) -> Mapping[str, torch.Tensor]:
        """As `losses`, of the second network, which `model` is called for."""


class AlternatingStep(TrainingStep):
    """A `TrainingStep` of an `AlternatingKind`."""

    def __init__(
        self,
        kind: AlternatingKind,
        plan: TrainingPlan,
        worker: Worker | None = None,
        engine: EngineMaker | None = None,
    ) -> None:
        """`engine`: of the model; the second network is whole on every worker."""
        super().__init__(kind, plan, worker, engine)
        self._kind = kind
        self.others[SECOND] = Other(engine=Replicas(kind.second, self._worker), turns=kind.turns)

    def step(self) -> dict[str, float]:
        """Take the turns of the second network, then the model's step."""
        losses = [self._take(turn) for turn in range(self._kind.turns)]
        return super().step() | {f"{SECOND}_loss": sum(losses) / len(losses)}

    def _take(self, turn: int) -> float:
        """A step of the second network; its loss."""
        engine, learn = self.others[SECOND].engine, partial(self._kind.second_losses, turn=turn)
        loss = self.gradients_of(engine, learn)[LOSS]
        engine.step(AHEAD * self.rate)
        return loss


def step_of(
    kind: Kind,
    plan: TrainingPlan,
    worker: Worker | None = None,
    engine: EngineMaker | None = None,
) -> TrainingStep:
    """The training of a kind, with or without a second network."""
    if has_second(kind):
        return AlternatingStep(kind, plan, worker, engine)
    return TrainingStep(kind, plan, worker, engine)


def has_second(kind: Kind) -> TypeGuard[AlternatingKind]:
    """Whether a kind has a second network."""
    return hasattr(kind, "second_losses")
