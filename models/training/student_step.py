"""A student's training step: a plain class without Ray, for one worker of one or several.

Letters: B samples of a worker, n tokens of an image, V vocabulary.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from models.batch import Ints
from models.sampling.noise import Purpose, row_keys, uniform
from models.students.network import Student
from models.students.pairs import Laws, Pairs
from models.training.order import records_of, sample_numbers, share
from models.training.schedule import average_weight, rate_at

CLIP = 1.0
BETAS = (0.9, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """A training: `steps` of `batch` samples of all workers together."""

    steps: int
    batch: int = 64
    rate: float = 1e-3
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of `world` workers; `add` sums a tensor over all workers, in place."""

    rank: int = 0
    world: int = 1
    add: Callable[[torch.Tensor], None] = lambda tensor: None


def start_of(samples: Ints, seed: int, num_tokens: int) -> torch.Tensor:
    """[B] how many tokens each sample's student knows: none for half, else 1 to n - 1."""
    chance = uniform(row_keys(np.full(len(samples), seed), samples, Purpose.TRAINING))
    some = 1 + np.floor((2 * chance - 1) * (num_tokens - 1)).astype(np.int64)
    return torch.from_numpy(np.where(chance < 0.5, 0, some))


class StudentStep:
    """Trains a student on pairs; every worker has the same weights and the same moments.

    Which records a step takes, in which order and from which start depends on the plan's seed and
    the step alone, and the loss is the mean over the places of all workers. So the workers' number
    changes a loss by rounding only.
    """

    def __init__(
        self,
        student: Student,
        laws: Laws,
        pairs: Pairs,
        plan: TrainingPlan,
        worker: Worker | None = None,
    ) -> None:
        """`laws`: the frozen teacher's logits [B, n, V] of classes [B] and tokens [B, n]."""
        self.student, self.plan, self.done = student, plan, 0
        self.average = copy.deepcopy(student).requires_grad_(False)
        self._laws, self._pairs, self._worker = laws, pairs, worker or Worker()
        self.optimiser = torch.optim.AdamW(
            student.parameters(), lr=plan.rate, betas=BETAS, weight_decay=0.0
        )

    def step(self) -> dict[str, float]:
        """Take the next step; its figures are those of all workers."""
        rate = rate_at(self.done, steps=self.plan.steps, peak=self.plan.rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self.gradients()
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), CLIP)
        self.optimiser.step()
        self._follow()
        self.done += 1
        return {"step": self.done, "loss": loss, "rate": rate, "gradient_norm": float(norm)}

    def gradients(self) -> float:
        """Leave the gradient of the step in the weights' `grad`; returns the loss, nats a place."""
        plan, worker = self.plan, self._worker
        samples = sample_numbers(self.done, plan.batch)
        length = self._pairs.records.tokens.shape[1]
        starts = start_of(samples, plan.seed, length)
        places = int((length - starts).sum())  # of all workers
        mine = share(plan.batch, worker.rank, worker.world)
        self.student.train()
        self.optimiser.zero_grad()
        loss = self._divergence(samples[mine], starts[mine]) / places
        loss.backward()
        whole = torch.cat([_gradient(p).flatten() for p in self.student.parameters()])
        whole = torch.cat([whole, loss.detach().view(1).to(whole)])
        worker.add(whole)
        self._spread(whole)
        return float(whole[-1])

    def _divergence(self, samples: Ints, starts: torch.Tensor) -> torch.Tensor:
        """The sum over samples and unknown places of KL(teacher's law | student's law)."""
        chosen = torch.from_numpy(
            records_of(samples, num_records=len(self._pairs), seed=self.plan.seed)
        )
        records, pairs = self._pairs.records, self._pairs
        classes, tokens = records.classes[chosen], records.tokens[chosen]
        logits = self.student(classes, tokens, pairs.noise[chosen], pairs.guesses[chosen], starts)
        wanted = self._laws(classes, tokens).log_softmax(-1)  # [B, n, V]
        each = divergence(wanted, logits)  # [B, n]
        unknown = torch.arange(tokens.shape[1]) >= starts[:, None]
        return (each * unknown).sum()

    def _spread(self, whole: torch.Tensor) -> None:
        """Put the summed gradient back into the weights."""
        first = 0
        for weight in self.student.parameters():
            weight.grad = whole[first : first + weight.numel()].view_as(weight)
            first += weight.numel()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights."""
        keep = average_weight(self.done)
        for average, now in zip(self.average.parameters(), self.student.parameters(), strict=True):
            average.lerp_(now, 1 - keep)


def divergence(wanted: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL(p | q) of log-probabilities `wanted` [..., V] and unnormalised logits [..., V]: [...]."""
    missing = wanted == -torch.inf
    gap = wanted.masked_fill(missing, 0) - logits.log_softmax(-1)
    return (wanted.exp() * gap).sum(-1)


def _gradient(weight: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
