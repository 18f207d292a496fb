"""A training step: a plain class without Ray, for one worker of one or several."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from models.training.engines.engine import Engine
from models.training.engines.replicas import Replicas
from models.training.engines.worker import Worker
from models.training.kind import LOSS, SCORE, Kind, Samples
from models.training.order import records_of, sample_numbers, share
from models.training.schedule import average_weight, rate_at

# what holds a model's weights and moments
EngineMaker = Callable[[nn.Module], Engine]
Losses = Callable[[nn.Module, Samples], Mapping[str, torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """A training: `steps` of `batch` samples of all workers together; `rate` is the peak."""

    steps: int
    batch: int = 64
    rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best state by exam: its averaged weights, in the CPU's memory."""

    step: int
    score: float
    weights: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A further network, which takes `turns` steps in each step of the model."""

    engine: Engine
    turns: int


class TrainingStep:
    """Trains a kind's model; every worker has its part of each batch.

    Which records a step takes and in which order depends on the plan's seed and the step alone, and
    the loss is normalised over all workers. So their number changes a loss by rounding only.
    """

    def __init__(
        self,
        kind: Kind,
        plan: TrainingPlan,
        worker: Worker | None = None,
        engine: EngineMaker | None = None,
    ) -> None:
        """`engine`: makes what holds weights and moments; default: whole ones on every worker."""
        self.kind, self.plan, self.done = kind, plan, 0
        self._worker = worker or Worker()
        self.average = copy.deepcopy(kind.model).requires_grad_(False).eval()
        self.engine: Engine = (
            Replicas(kind.model, self._worker) if engine is None else engine(kind.model)
        )
        self.best: Best | None = None
        self.others: dict[str, Other] = {}  # further networks by name

    @property
    def rate(self) -> float:
        """The next step's."""
        return rate_at(self.done, steps=self.plan.steps, peak=self.plan.rate)

    def step(self) -> dict[str, float]:
        """Take the next step; its figures are those of all workers."""
        rate = self.rate
        figures = self.gradients()
        norm = self.engine.step(rate)
        self._follow()
        self.done += 1
        return {"step": self.done, **figures, "rate": rate, "gradient_norm": norm}

    def gradients(self) -> dict[str, float]:
        """Compute the step's gradients; returns its figures, LOSS first."""
        return self.gradients_of(self.engine, self.kind.losses)

    def gradients_of(self, engine: Engine, losses: Losses) -> dict[str, float]:
        """The same of one of the networks and its losses, on the step's samples."""
        samples = samples_of(self.plan, self.done, self.kind.num_records)
        whole = self.kind.weight(samples)
        engine.model.train()
        sums: dict[str, torch.Tensor] = {}
        for some in parts_of(samples, self._worker.rank, self._worker.world, engine.accumulate):
            found = losses(engine.model, some)
            engine.backward(found[LOSS] / whole)
            for name, value in found.items():
                sums[name] = sums.get(name, torch.zeros(())) + value.detach().float().cpu()
        names = [LOSS, *sorted(set(sums) - {LOSS})]
        totals = torch.stack([sums[name] for name in names])
        self._worker.add(totals)
        return dict(zip(names, (totals / whole).tolist(), strict=True))

    def examine(self) -> dict[str, float]:
        """The figures of the averaged weights, which become the best if their score is higher."""
        figures = dict(self.kind.exam(self.average))
        if figures and (self.best is None or figures[SCORE] > self.best.score):
            weights = {
                name: weight.to("cpu", copy=True)
                for name, weight in self.average.named_parameters()
            }
            self.best = Best(step=self.done, score=figures[SCORE], weights=weights)
        return figures

    def chosen(self) -> nn.Module:
        """The averaged model to export: the best by exam, or the last one without exams."""
        model = copy.deepcopy(self.average)
        if self.best is not None:
            put(model, self.best.weights)
        return model

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights."""
        keep, now = average_weight(self.done), self.engine.weights()
        for name, average in self.average.named_parameters():
            average.lerp_(now[name].to(average.device), 1 - keep)


def samples_of(plan: TrainingPlan, step: int, num_records: int) -> Samples:
    """Those of all workers in a step."""
    numbers = sample_numbers(step, plan.batch)
    records = records_of(numbers, num_records=num_records, seed=plan.seed)
    return Samples(numbers=numbers, records=records)


def parts_of(samples: Samples, rank: int, world: int, accumulate: int) -> list[Samples]:
    """What worker `rank` of `world` takes of a step's samples, in `accumulate` parts."""
    mine = samples[share(len(samples.numbers), rank, world)]
    count = len(mine.numbers)
    return [mine[share(count, part, accumulate)] for part in range(accumulate)]


def put(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy parameters by name into a model."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[name])
