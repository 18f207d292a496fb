"""Chains and trees that a model drafts in one call."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from models.batch import Ints
from models.compute.x86.forward import Nodes
from models.compute.x86.kernels import Draw, Knobs, library


class Trees(NamedTuple):
    """All nodes of trees, and the most likely nodes of each tree, in the same order."""

    tokens: Ints  # [rows, N]
    parents: Ints  # [rows, N], -1 for the root
    kept_tokens: Ints  # [rows, M]
    kept_parents: Ints  # [rows, M]
    kept_levels: Ints  # [rows, M] depths, ascending


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """Drafts with a model, in one call, after the last node of each row of a batch of chains."""

    nodes: Nodes
    model: Ints  # as in models/compute/x86/csrc/kernels.h
    width: int
    eps: float
    draw: Draw
    knobs: Knobs

    def arguments(self) -> tuple[Any, ...]:
        """The first arguments of the kernels that draft."""
        of_model = self.nodes.of_model(self.width, self.eps)
        tokens = np.ascontiguousarray(self.nodes.batch.tokens)
        return *self.nodes.arguments(), *of_model, self.model, tokens, *self.draw, *self.knobs

    def chain(self, depth: int) -> Ints:
        """[depth, rows] tokens that the model chooses, one level after the other."""
        chosen = np.empty((depth, len(self.nodes.batch.rows)), dtype=np.int64)
        self.nodes.cache.hold(self.nodes.batch, depth - 1)
        library().chain(*self.arguments(), chosen)
        return chosen

    def trees(self, width: int, depth: int, budget: int) -> Trees:
        """Trees with `width` nodes a level, and their `budget` best; see draft_models/tree.py."""
        rows, size = len(self.nodes.batch.rows), width * depth
        counts = (size, size, *[min(budget, size)] * 3)
        made = Trees(*(np.empty((rows, count), dtype=np.int64) for count in counts))
        self.nodes.cache.hold(self.nodes.batch, size - width)
        library().trees(*self.arguments(), width, *made)
        return made
