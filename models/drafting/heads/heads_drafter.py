"""Drafts chains and trees with heads, from the target's last state of each request.

Heads have no cache: a draft depends on that state, and for Hydra's on the tokens since then.
Letters: B sequences, W nodes a level, V vocabulary, D width of the target.
"""

from collections.abc import Sequence as Several
from typing import Protocol

import numpy as np
import torch

from models.batch import Ints
from models.drafting.draft import Draft, Shape, chain_draft
from models.drafting.drafter import DraftContext, clip, propose_some, useful_depth
from models.drafting.growth import PLAIN, grow_chain, grow_tree, num_generated
from models.drafting.reading import Reading
from models.drafting.sharpness import Sharpness
from models.drafting.tree import Tree
from models.engine_config import MAX_WIDTH
from models.readout import Readout
from models.requests.sequence import Sequence
from models.verify.round import Commit, Round


class Steps(Protocol):
    """One round's drafts of B sequences, level by level."""

    logits: torch.Tensor  # [B, V] of the first level

    def feed_chain(self, tokens: Ints, level: int) -> torch.Tensor:
        """Logits [B, V] of the level after `level`, whose tokens [B] are these."""

    def feed_tree(self, tree: Tree) -> torch.Tensor:
        """Logits [B * W, V] of the level after the tree's last one."""


class HeadsModel(Protocol):
    """Heads, ready to run on one device."""

    vocab_size: int
    context_length: int
    num_heads: int
    num_parameters: int
    device: torch.device

    def start(self, states: torch.Tensor, roots: Ints, depth: int) -> Steps:
        """Begin drafts of at most `depth` <= `num_heads` levels.

        Args:
            states: [B, D] of the target, after the token before the last one of each sequence.
            roots: [B] the last tokens.
        """


class HeadsDrafter:
    """Heads and the states that they read; a `ReadingDrafter`."""

    max_width = MAX_WIDTH
    remote = False
    transfer_s = 0.0
    bytes_per_entry = 0
    wants = Readout(layers=(-1,))
    whole = False  # the last state suffices

    def __init__(
        self, model: HeadsModel, *, name: str = "heads", sharpness: Sharpness = PLAIN
    ) -> None:
        self.name, self.model, self._sharpness = name, model, sharpness
        self.passes = 0
        self._states: dict[str, tuple[int, torch.Tensor]] = {}  # the last position's, [D]

    def begin(self, sequence: Sequence) -> int:
        """It drafts from whatever comes."""
        return len(sequence.tokens)

    def read(self, readings: Several[Reading]) -> None:
        """Keep the state of each request's last position."""
        for reading in readings:
            assert reading.states is not None
            last = reading.first + len(reading.states) - 1
            self._states[reading.sequence.id] = last, reading.states[-1, 0].clone()

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """Does nothing: `read` was told the states."""

    def forget(self, request_id: str) -> None:
        """Drop the request's state."""
        self._states.pop(request_id, None)

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """Chains (width 1) or trees, with the context's noise, as deep as there are heads."""
        depth = max((useful_depth(s, shape) for s in sequences), default=0)
        depth = min(depth, self.model.num_heads)
        held = [b for b, s in enumerate(sequences) if depth and self._is_ready(s)]
        return propose_some(
            sequences, held, context, lambda some, their: self._propose(some, depth, shape, their)
        )

    def _is_ready(self, sequence: Sequence) -> bool:
        """Whether the state before the last token is here."""
        position, _ = self._states.get(sequence.id, (-1, None))
        return position == len(sequence.tokens) - 2 >= 0

    def _propose(
        self, sequences: list[Sequence], depth: int, shape: Shape, context: DraftContext
    ) -> list[Draft]:
        states = torch.stack([self._states[s.id][1] for s in sequences])
        roots = np.array([s.tokens[-1] for s in sequences], dtype=np.int64)
        steps = self.model.start(states, roots, depth)
        self.passes += 1
        generated = num_generated(sequences)
        if shape.width == 1:
            tokens, probs = grow_chain(steps.logits, depth, generated, context, steps.feed_chain)
            counts = [min(useful_depth(s, shape), depth) for s in sequences]
            return [
                chain_draft(tokens[b, :count], None if probs is None else probs[b, :count])
                for b, count in enumerate(counts)
            ]
        feed, trust = steps.feed_tree, self._sharpness
        tree = grow_tree(steps.logits, shape.width, depth, generated, context, feed, trust)
        kept = tree.best(shape.budget)
        return [
            clip(Draft(tokens=tokens, parents=parents), useful_depth(sequence, shape), levels)
            for sequence, _, _, tokens, parents, levels in zip(sequences, *kept, strict=True)
        ]
