"""A draft: a tree of guessed tokens, and the shape that was asked for.

Letters: N nodes, V vocabulary.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from models.batch import Bools, Ints


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
        return bool((self.parents == np.arange(-1, len(self.tokens) - 1)).all())


EMPTY = Draft(tokens=np.zeros(0, np.int64), parents=np.zeros(0, np.int64))


def chain_draft(tokens: Ints, probs: torch.Tensor | None = None) -> Draft:
    """A draft with one branch."""
    return Draft(tokens=tokens, parents=np.arange(-1, len(tokens) - 1), probs=probs)


def depths(parents: Ints) -> Ints:
    """[N] number of tokens between each node and the root: 1 for the root's children."""
    out = np.ones(len(parents), dtype=np.int64)
    for i, parent in enumerate(parents.tolist()):
        if parent >= 0:
            out[i] = out[parent] + 1
    return out


def visibility(parents: Ints) -> Bools:
    """[N + 1, N + 1] bool, the root first: row i sees column j if j is i or an ancestor of it."""
    return _visibility(tuple(parents.tolist()))


@cache
def _visibility(parents: tuple[int, ...]) -> Bools:
    out = np.eye(len(parents) + 1, dtype=np.bool_)
    for i, parent in enumerate(parents):
        out[i + 1] |= out[parent + 1]
    return out
