"""The window of draft tokens of a parallel decoder, and the start rules that fill it.

Source of the start rules: Teng et al. 2024, arXiv 2410.01699 (any token; neighbours of the grid).
Letters: W draft tokens, V vocabulary.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from models.batch import Ints
from models.requests.sequence import Sequence
from models.sampling.noise import Purpose, row_keys, uniform


def _nothing() -> Ints:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Window:
    """Draft tokens of a request's next positions; `probs` [W, V]: their distributions, if any."""

    tokens: Ints = field(default_factory=_nothing)  # [W]
    probs: torch.Tensor | None = None


class Filler(Protocol):
    """Where the first draft token of a position comes from."""

    def fill(self, sequence: Sequence, tokens: Ints, depth: int, vocab_size: int) -> Ints:
        """[depth]: the draft tokens `tokens`, cut or filled up to `depth`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The rule for the first draft token of a position.

    "uniform": any token. "left": the token to the left. "above": the token above, in rows of
    `row_length`; in the first row, the token to the left. Any token if the neighbour is not a token
    of the vocabulary.
    """

    rule: str
    row_length: int = 1

    def fill(self, sequence: Sequence, tokens: Ints, depth: int, vocab_size: int) -> Ints:
        """[depth]: the draft tokens `tokens`, cut or filled up to `depth`."""
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
        """The neighbour's id, which may be a condition beyond the vocabulary; -1: there is none."""
        place = sequence.num_generated + len(guesses)
        back = {"uniform": 0, "left": 1, "above": self.row_length}[self.rule]
        if self.rule == "above" and place < self.row_length:
            back = 1
        if back == 0:
            return -1
        if back <= len(guesses):
            return guesses[-back]
        return sequence.tokens[len(guesses) - back]  # the prompt is never empty


def _anything(sequence: Sequence, positions: Ints, vocab_size: int) -> Ints:
    """A uniformly random token for each position [W]."""
    seeds = np.full(len(positions), sequence.request.seed, dtype=np.int64)
    chance = uniform(row_keys(seeds, positions, Purpose.START))
    tokens: Ints = (chance * vocab_size).astype(np.int64)
    return tokens
