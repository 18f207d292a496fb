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

STARTS = ("uniform", "left", "above")


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
    vocab_size: int
    row_length: int = 1

    def fill(self, sequence: Sequence, tokens: Ints, depth: int) -> Ints:
        """[depth]: the guesses `tokens` for the next positions, cut or filled up."""
        if len(tokens) >= depth:
            return tokens[:depth]
        begin = len(sequence.tokens)
        guesses = tokens.tolist()
        anything = self._anything(sequence, begin + np.arange(len(guesses), depth))
        for token in anything.tolist():
            guesses.append(self._neighbour(sequence, guesses, token))
        return np.array(guesses, dtype=np.int64)

    def _anything(self, sequence: Sequence, positions: Ints) -> Ints:
        """A token for each position, all equally likely."""
        seeds = np.full(len(positions), sequence.request.seed, dtype=np.int64)
        chance = uniform(row_keys(seeds, positions, Purpose.START))
        return (chance * self.vocab_size).astype(np.int64)

    def _neighbour(self, sequence: Sequence, guesses: list[int], otherwise: int) -> int:
        place = sequence.num_generated + len(guesses)
        back = {"uniform": 0, "left": 1, "above": self.row_length}[self.rule]
        if self.rule == "above" and place < self.row_length:
            back = 1
        if back == 0:
            return otherwise
        if back <= len(guesses):
            return guesses[-back]
        before = len(sequence.tokens) - (back - len(guesses))
        token = sequence.tokens[before] if before >= 0 else self.vocab_size
        return token if token < self.vocab_size else otherwise  # a condition is not a token
