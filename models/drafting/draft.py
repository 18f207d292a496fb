"""A draft: a tree of draft tokens, and the requested shape.

Letters: N nodes, V vocabulary.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch

from models.batch import Bools, Ints

KNOWN_SHAPES = 4096  # of drafts, whose depths and masks are cached
KNOWN_FORMS = 1024  # of the drafts of a round, cached


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The size of a draft: `depth` tokens ahead, `width` nodes for each, at most `nodes` in all."""

    depth: int
    width: int = 1
    nodes: int = 0  # 0: depth * width

    @property
    def budget(self) -> int:
        """The most nodes a draft of this shape has."""
        return self.nodes or self.depth * self.width

    @property
    def fan(self) -> float:
        """Mean number of nodes for each depth: 1 in a chain."""
        return self.budget / self.depth if self.depth else 0.0


NOTHING = Shape(depth=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The draft tokens of one request. Node i continues node parents[i] < i; -1 is the root.

    `probs` [N, V] float32 are the distributions that the tokens were sampled from; None for
    deterministic draft tokens.
    """

    tokens: Ints  # [N]
    parents: Ints  # [N]
    probs: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        """Whether every node continues the one before it."""
        return form_of([self]).visible[0] is None


EMPTY = Draft(tokens=np.zeros(0, np.int64), parents=np.zeros(0, np.int64))


def chain_draft(tokens: Ints, probs: torch.Tensor | None = None) -> Draft:
    """A draft with one branch."""
    return Draft(tokens=tokens, parents=_chain(len(tokens)), probs=probs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The layout of the drafts of B requests in one pass: T packed nodes, each root first.

    Read-only.
    """

    counts: Ints  # [B] nodes of each request
    starts: Ints  # [B] packed index of each root
    owners: Ints  # [T] the request of each node
    levels: Ints  # [T] depth of each node, the root's is 0
    depths: tuple[int, ...]  # [B] of the drafts
    visible: tuple[Bools | None, ...]  # [B] masks of the nodes, None for chains


def form_of(drafts: Several[Draft]) -> Form:
    """The form of the drafts of one round; cached by their shapes."""
    return _form(tuple([draft.parents.tobytes() for draft in drafts]))


def depths(parents: Ints) -> Ints:
    """[N] number of tokens between each node and the root: 1 for the root's children."""
    return _levels(parents.tobytes())[1:]


def visibility(parents: Ints) -> Bools:
    """[N + 1, N + 1] bool, the root first: row i sees column j if j is i or an ancestor of it."""
    return _visibility(parents.tobytes())


# The same few shapes occur in many rounds, so their tables are cached.


@cache
def _chain(count: int) -> Ints:
    parents = np.arange(-1, count - 1)
    parents.flags.writeable = False
    return parents


@lru_cache(KNOWN_FORMS)
def _form(parents: tuple[bytes, ...]) -> Form:
    levels = [_levels(own) for own in parents]
    counts = np.array([len(own) for own in levels], dtype=np.int64)
    return Form(
        counts=counts,
        starts=np.cumsum(counts) - counts,
        owners=np.repeat(np.arange(len(counts)), counts),
        levels=np.concatenate(levels),
        depths=tuple(int(own[-1]) for own in levels),
        visible=tuple(
            None if own[-1] == len(own) - 1 else _visibility(key)
            for own, key in zip(levels, parents, strict=True)
        ),
    )


@lru_cache(KNOWN_SHAPES)
def _levels(parents: bytes) -> Ints:
    known = np.frombuffer(parents, dtype=np.int64)
    out = np.zeros(len(known) + 1, dtype=np.int64)
    for i, parent in enumerate(known):
        out[i + 1] = out[parent + 1] + 1
    out.flags.writeable = False
    return out


@lru_cache(KNOWN_SHAPES)
def _visibility(parents: bytes) -> Bools:
    known = np.frombuffer(parents, dtype=np.int64)
    out = np.eye(len(known) + 1, dtype=np.bool_)
    for i, parent in enumerate(known):
        out[i + 1] |= out[parent + 1]
    out.flags.writeable = False
    return out
