"""Finds out whether two outputs of one request differ because of rounding only.

The chosen token is argmax(log p + noise). Runs with batches of other shapes compute p with other
rounding errors. If the two best tokens are closer than these errors, either may win. Scoring the
common prefix again shows how close they were.
"""

from dataclasses import dataclass

import numpy as np
import torch

from models.batch import chain
from models.registry import GUMBEL
from models.requests.request import Request
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore, Purpose
from models.sampling.processing import Processor
from models.targets.target import Target
from models.verify.round import RoundNoise

SLACK = 8.0  # rounding error of a forward pass, in units of the largest logit's last place


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first position at which two outputs differ.

    `gap`: the score difference of the two tokens. `shortfall`: the score difference of the best of
    all tokens and the better one of the two; 0 unless neither should have won. `gap`, `shortfall`
    and `tolerance` are in units of log p + noise.
    """

    index: int
    tokens: tuple[int, int]
    gap: float
    shortfall: float
    tolerance: float

    @property
    def is_tie(self) -> bool:
        """Whether rounding explains the difference."""
        return self.gap + self.shortfall <= self.tolerance


def first_difference(
    target: Target, request: Request, first: tuple[int, ...], second: tuple[int, ...]
) -> Difference | None:
    """Compare two outputs of one request under `match`; None if they are equal.

    Raises:
        ValueError: one output is a prefix of the other, so they ended for different reasons; or the
            request uses another map than Gumbel noise, for which scores say nothing about ties.
    """
    if first == second:
        return None
    if request.noise != GUMBEL:
        raise ValueError(
            f"request {request.id!r}: noise={request.noise!r}; only {GUMBEL} is replayed"
        )
    pairs = enumerate(zip(first, second, strict=False))
    index = next((i for i, (a, b) in pairs if a != b), None)
    if index is None:
        raise ValueError(f"request {request.id!r}: one output is the beginning of the other")
    scores = _scores(target, request, first[:index])  # [V]
    a, b = float(scores[first[index]]), float(scores[second[index]])
    logit_size = float(scores[scores.isfinite()].abs().max())
    return Difference(
        index=index,
        tokens=(first[index], second[index]),
        gap=abs(a - b),
        shortfall=float(scores.max()) - max(a, b),
        tolerance=SLACK * torch.finfo(target.dtype).eps * max(logit_size, 1.0),
    )


def _scores(target: Target, request: Request, prefix: tuple[int, ...]) -> torch.Tensor:
    """[V] log p + noise (unnormalised) of the token after `prefix`."""
    sequence = Sequence(request, eos=target.eos_token_ids)
    sequence.tokens += prefix  # the whole output so far, `request.generated` included
    tokens = np.array(sequence.tokens, dtype=np.int64)
    cache = target.new_cache(1, len(tokens))
    batch = chain(0, tokens, wanted=np.array([len(tokens) - 1]))
    logits = target.score(cache, batch).logits  # [1, V]
    processor = Processor([sequence], target.vocab_size, target.device)
    owner = np.zeros(1, dtype=np.int64)
    values = processor(logits, owner, np.array([sequence.num_generated]))
    if not processor.any_stochastic:
        return values[0]
    noise = RoundNoise([sequence], NoiseStore(target.vocab_size, target.device))
    return (values + noise.rows(Purpose.TOKEN, owner, owner))[0]
