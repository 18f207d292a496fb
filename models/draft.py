"""A draft: a tree of guessed tokens, and the shape that was asked for.

Letters: N nodes, V vocabulary.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from models.batch import Bools, Ints

KNOWN_SHAPES = 4096  # whose depths and visibility are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How much to draft: `depth` tokens ahead, `width` guesses at each, at most `nodes` in all."""

    depth: int
    width: int = 1
    nodes: int = 0  # 0: depth * width

    @property
    def budget(self) -> int:
        """The most nodes a draft of this shape has."""
        return self.nodes or self.depth * self.width


NOTHING = Shape(depth=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Guesses for one request; node i continues node parents[i] < i, or the root where that is -1.

    `probs` [N, V] float32 is the distribution that each token was really drawn from; None for
    deterministic guesses.
    """

    tokens: Ints  # [N]
    parents: Ints  # [N]
    probs: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        """Whether every node continues the one before it."""
        return int(levels(self.parents)[-1]) == len(self.tokens)


EMPTY = Draft(tokens=np.zeros(0, np.int64), parents=np.zeros(0, np.int64))


def chain_draft(tokens: Ints, probs: torch.Tensor | None = None) -> Draft:
    """A draft with one branch."""
    return Draft(tokens=tokens, parents=np.arange(-1, len(tokens) - 1), probs=probs)


def depths(parents: Ints) -> Ints:
    """[N] number of tokens between each node and the root: 1 for the root's children."""
    return levels(parents)[1:]


def levels(parents: Ints) -> Ints:
    """[N + 1] depths of all nodes, the root first: 0. Not to be written to."""
    return _levels(tuple(parents.tolist()))


def visibility(parents: Ints) -> Bools:
    """[N + 1, N + 1] bool, the root first: row i sees column j if j is i or an ancestor of it."""
    return _visibility(tuple(parents.tolist()))


# The same few shapes come again and again, round after round.


@lru_cache(KNOWN_SHAPES)
def _levels(parents: tuple[int, ...]) -> Ints:
    out = np.zeros(len(parents) + 1, dtype=np.int64)
    for i, parent in enumerate(parents):
        out[i + 1] = out[parent + 1] + 1
    out.flags.writeable = False
    return out


@lru_cache(KNOWN_SHAPES)
def _visibility(parents: tuple[int, ...]) -> Bools:
    out = np.eye(len(parents) + 1, dtype=np.bool_)
    for i, parent in enumerate(parents):
        out[i + 1] |= out[parent + 1]
    out.flags.writeable = False
    return out
