"""The nodes that a target scores to decide a group of positions.

A model that decodes along diagonals feeds the tokens of the last group. A model with random orders
feeds these tokens, and one query for each planned position; its cache keeps the tokens only. A
next-scale model feeds vectors computed from all tokens so far.
Letters: B requests, m nodes of one, n planned positions, C width of a vector.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from models.batch import VECTOR, Batch, Bools, Ints
from models.requests.canvas import Canvas
from models.requests.request import Request
from models.schedules.schedule import Plan
from models.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The nodes that one request contributes to a pass; see `Batch` for tokens, depths, visible.

    `wanted` [n] are the nodes whose logits decide the plan's positions, in the plan's order. `kept`
    are the nodes whose cache entries stay, ascending; all others are dropped after the pass.
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
        """Raise InvalidRequest if the target cannot read the prompt."""

    def feed(self, canvases: Several[Canvas], plans: Several[Plan]) -> list[Feed]:
        """The nodes that score each plan. The prompt, except its last token, is in the cache."""


def pack(feeds: Several[Feed]) -> Batch:
    """The batch of one pass over the cache rows 0 to B - 1."""
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
