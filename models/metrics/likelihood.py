"""The likelihood of sequences under a teacher: -log p of their tokens, and expected values.

Letters: B sequences scored at once, T tokens of a sequence, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.batch import Batch, Ints
from models.metrics.resample import Floats
from models.targets.target import Target

# (prefixes, sequences) -> the logits [T, V] of the tokens of each sequence.
Score = Callable[[Sequence[Ints], Sequence[Ints]], list[torch.Tensor]]
MAX_LOGITS = 2**24  # values in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """By sequence [N], in nats: `nll`, the sum of -log p of its tokens, and `expected`, the sum of
    the entropies of the teacher's distributions; `counts`, its number of tokens."""

    nll: Floats
    expected: Floats
    counts: Floats


def likelihood(
    score: Score, prefixes: Sequence[Ints], sequences: Sequence[Ints], *, vocab_size: int
) -> Likelihood:
    """Score sequences, in batches of similar length.

    Raises:
        ValueError: a token is outside the vocabulary.
    """
    _check(sequences, vocab_size)
    sums = np.zeros((len(sequences), 2))
    lengths = [len(a) + len(b) for a, b in zip(prefixes, sequences, strict=True)]
    order = np.argsort(lengths, kind="stable")
    at_once = max(1, MAX_LOGITS // (vocab_size * max(lengths, default=1)))
    for start in range(0, len(order), at_once):
        part = order[start : start + at_once].tolist()
        found = score([prefixes[i] for i in part], [sequences[i] for i in part])
        for i, logits in zip(part, found, strict=True):
            sums[i] = _sums(logits, torch.from_numpy(sequences[i]))
    counts = np.array([len(sequence) for sequence in sequences], dtype=np.float64)
    return Likelihood(nll=sums[:, 0], expected=sums[:, 1], counts=counts)


def teacher_forced(target: Target) -> Score:
    """Scores with a target, in one pass over prefixes (at least one token) and sequences."""

    def score(prefixes: Sequence[Ints], sequences: Sequence[Ints]) -> list[torch.Tensor]:
        inputs = [np.concatenate([a, b[:-1]]) for a, b in zip(prefixes, sequences, strict=True)]
        counts = np.array([len(tokens) for tokens in inputs])
        starts = np.cumsum(counts) - counts
        wanted = [
            np.arange(start + len(prefix) - 1, start + count)
            for start, count, prefix in zip(starts, counts, prefixes, strict=True)
        ]
        batch = Batch(
            rows=np.arange(len(inputs)),
            counts=counts,
            tokens=np.concatenate(inputs),
            depths=np.concatenate([np.arange(count) for count in counts]),
            visible=(None,) * len(inputs),
            wanted=np.concatenate(wanted),
        )
        cache = target.new_cache(len(inputs), int(counts.max()))
        logits = target.score(cache, batch).logits
        return list(logits.split([len(rows) for rows in wanted]))

    return score


def guided(score: Score, scale: float, nothing: Ints) -> Score:
    """Scores with guidance: logits without + scale * (with - without) the condition.

    `nothing` is the prefix in the half without the condition.
    Source: Ho and Salimans 2022, arXiv 2207.12598, applied to logits.
    """

    def blended(prefixes: Sequence[Ints], sequences: Sequence[Ints]) -> list[torch.Tensor]:
        without = score([nothing] * len(sequences), sequences)
        pairs = zip(without, score(prefixes, sequences), strict=True)
        return [torch.lerp(bare, full, scale) for bare, full in pairs]

    return blended


def _sums(logits: torch.Tensor, tokens: torch.Tensor) -> tuple[float, float]:
    """(-log p, entropy), each summed over the tokens [T] with logits [T, V]."""
    logprobs = logits.double().log_softmax(-1).cpu()
    price = -logprobs.gather(-1, tokens[:, None]).sum()
    entropy = torch.special.entr(logprobs.exp()).sum()
    return float(price), float(entropy)


def _check(sequences: Sequence[Ints], vocab_size: int) -> None:
    for i, sequence in enumerate(sequences):
        bad = sequence[(sequence < 0) | (sequence >= vocab_size)]
        if len(bad):
            raise ValueError(f"row {i}: token {bad[0]} is outside the vocabulary of {vocab_size}")
