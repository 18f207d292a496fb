"""The window of guesses that parallel decoding keeps ahead of a request, and how it is begun.

Sources of the start rules: Teng et al. 2024, arXiv 2410.01699 (any token; neighbours of the grid).
Letters: W guesses, V vocabulary.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from models.batch import Ints
from models.noise import Purpose, row_keys, uniform
from models.sequence import Sequence


def _nothing() -> Ints:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Window:
    """Guesses for a request's next positions; `probs` [W, V]: what each was drawn from, if told."""

    tokens: Ints = field(default_factory=_nothing)  # [W]
    probs: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a position gets its first guess, of which nothing is known yet.

    "uniform": any token. "left": its left neighbour's. "above": that of the place above it in rows
    of `row_length`; in the first row, its left neighbour's. Where no neighbour holds a token of the
    vocabulary: any token.
    """

    rule: str
    row_length: int = 1

    def fill(self, sequence: Sequence, tokens: Ints, depth: int, vocab_size: int) -> Ints:
        """[depth]: the guesses `tokens` for the next positions, cut or filled up."""
        if len(tokens) >= depth:
            return tokens[:depth]
        begin = len(sequence.tokens)
        guesses = tokens.tolist()
        positions = begin + np.arange(len(guesses), depth)
        for anything in _anything(sequence, positions, vocab_size).tolist():
            neighbour = self._neighbour(sequence, guesses)
            guesses.append(neighbour if 0 <= neighbour < vocab_size else anything)
        return np.array(guesses, dtype=np.int64)

    def _neighbour(self, sequence: Sequence, guesses: list[int]) -> int:
        """What stands there, maybe a condition, which is beyond the vocabulary; -1: nothing."""
        place = sequence.num_generated + len(guesses)
        back = {"uniform": 0, "left": 1, "above": self.row_length}[self.rule]
        if self.rule == "above" and place < self.row_length:
            back = 1
        if back == 0:
            return -1
        if back <= len(guesses):
            return guesses[-back]
        return sequence.tokens[len(guesses) - back]  # of the prompt at least: it is never empty


def _anything(sequence: Sequence, positions: Ints, vocab_size: int) -> Ints:
    """A token for each position [W], all equally likely."""
    seeds = np.full(len(positions), sequence.request.seed, dtype=np.int64)
    chance = uniform(row_keys(seeds, positions, Purpose.START))
    tokens: Ints = (chance * vocab_size).astype(np.int64)
    return tokens
