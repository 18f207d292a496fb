"""What a target that decides positions in groups must be fed: the nodes of each request's pass.

A model of diagonals feeds the tokens of the last group; one of random orders feeds them and a query
for every planned position, of which it keeps the tokens; a next-scale model feeds vectors made of
all tokens so far. Letters: B requests, m nodes of one, n planned positions, C width of a vector.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from models.batch import VECTOR, Batch, Bools, Ints
from models.canvas import Canvas
from models.request import Request
from models.schedule import Plan
from models.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The nodes that one request contributes to a pass; see `Batch` for tokens, depths, visible.

    `wanted` [n] are the nodes whose logits decide the plan's positions, in its order. `kept` are
    those whose entries stay in the cache, ascending; the others are forgotten after the pass.
    """

    tokens: Ints  # [m], VECTOR where the node reads a vector
    depths: Ints  # [m]
    visible: Bools  # [m, m]
    wanted: Ints  # [n]
    kept: Ints
    vectors: torch.Tensor | None = None  # [m, C]
    condition: int | None = None  # input id that all nodes are conditioned on


class GroupTarget(Target, Protocol):
    """A target whose schedule is not `in_order`."""

    scratch: int  # cache entries that a pass may need beyond prompt and output positions

    def check(self, request: Request) -> None:
        """Raise InvalidRequest if the prompt is not one that the target reads."""

    def feed(self, canvases: Several[Canvas], plans: Several[Plan]) -> list[Feed]:
        """The nodes that score each canvas's plan; all but the prompt's last token is cached."""


def pack(feeds: Several[Feed]) -> Batch:
    """One pass over the cache's rows 0 to B - 1."""
    counts = np.array([len(feed.tokens) for feed in feeds], dtype=np.int64)
    starts = np.cumsum(counts) - counts
    conditions = [feed.condition for feed in feeds]
    return Batch(
        rows=np.arange(len(feeds)),
        counts=counts,
        tokens=np.concatenate([feed.tokens for feed in feeds]),
        depths=np.concatenate([feed.depths for feed in feeds]),
        visible=tuple(feed.visible for feed in feeds),
        wanted=np.concatenate([s + f.wanted for s, f in zip(starts, feeds, strict=True)]),
        inputs=_stacked(feeds, counts),
        conditions=None if None in conditions else np.array(conditions, dtype=np.int64),
    )


def _stacked(feeds: Several[Feed], counts: Ints) -> torch.Tensor | None:
    """[T, C] the vectors of all nodes, zeros where a feed has none."""
    known = next((feed.vectors for feed in feeds if feed.vectors is not None), None)
    if known is None:
        assert all((feed.tokens != VECTOR).all() for feed in feeds)
        return None
    parts = [
        known.new_zeros(count, known.shape[1]) if feed.vectors is None else feed.vectors
        for feed, count in zip(feeds, counts.tolist(), strict=True)
    ]
    return torch.cat(parts)
