"""Drafts chains and trees with an EAGLE-3 drafter, from the target's states.

Entry i of a request's row in the cache comes from the target's states after token i, and from token
i + 1. So rows share the entries of a common beginning of their texts, all but its last token's.
States that the drafter made itself, for tokens that are not verified, stay scratch: they are
dropped, and come anew from the target.
Letters: B sequences, T packed nodes, W nodes a level, V vocabulary, D width.
"""

from array import array
from collections.abc import Sequence as Several
from dataclasses import dataclass, field

import numpy as np
import torch

from models.batch import Batch, Ints, chains
from models.drafting.draft import Draft, Shape, chain_draft
from models.drafting.drafter import DraftContext, clip, propose_some, useful_depth
from models.drafting.growth import PLAIN, grow_chain, grow_tree, num_generated
from models.drafting.heads.eagle_model import EagleModel
from models.drafting.reading import Reading
from models.drafting.sharpness import Sharpness
from models.drafting.tree import Tree
from models.engine_config import MAX_WIDTH
from models.memory.blocks import BLOCK
from models.requests.sequence import Sequence
from models.verify.round import Commit, Round


@dataclass(slots=True)
class Row:
    """A request's row of the cache, and the states of the positions after it, [., D] each.

    `text`: the tokens of its entries, in the cache's terms: those after the request's first one.
    """

    slot: int
    text: list[int] = field(default_factory=list)
    waiting: list[torch.Tensor] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Positions that wait."""
        return sum(map(len, self.waiting))


class EagleDrafter:
    """An EAGLE-3 drafter with its cache; a `ReadingDrafter`."""

    max_width = MAX_WIDTH
    whole = False  # its cache shares entries as the target's does
    remote = False
    transfer_s = 0.0

    def __init__(
        self,
        model: EagleModel,
        *,
        rows: int,
        capacity: int,
        name: str = "eagle3",
        entries: int | None = None,
        sharpness: Sharpness = PLAIN,
    ) -> None:
        """`entries`: of all rows of the cache together (None: every row can be full)."""
        self.name, self.model, self.wants = name, model, model.wants
        self._sharpness = sharpness
        self.passes = 0
        self._cache = model.new_cache(rows, capacity, entries)
        self._free = list(range(rows))
        self._rows: dict[str, Row] = {}
        self._lost: set[str] = set()  # requests without room: their states are gone

    @property
    def bytes_per_entry(self) -> int:
        return self.model.bytes_per_entry

    # --- what the target tells ----------------------------------------------------------------

    def begin(self, sequence: Sequence) -> int:
        """Take over the entries of the request's first tokens that are in memory."""
        row = self._row(sequence.id)
        assert not row.text, sequence.id
        row.text += sequence.tokens[1:]
        # Entries depend on the first token, too, which the text of the cache does not have.
        salt = sequence.request.cache_salt + array("q", sequence.tokens[:1]).tobytes()
        return self._cache.begin(row.slot, row.text, salt)

    def read(self, readings: Several[Reading]) -> None:
        """Keep the states of new positions, and read them once they would fill a block.

        So others can begin with them, also where nothing is drafted.
        """
        due = []
        for reading in readings:
            sequence = reading.sequence
            if sequence.id in self._lost:
                continue
            assert reading.states is not None
            row = self._row(sequence.id)
            known = int(self._cache.lengths[row.slot]) + row.count - reading.first
            assert known >= 0, f"positions before {reading.first} were never read"
            if known < len(reading.states):
                row.waiting.append(self.model.fuse(reading.states[known:]))
            if row.count > BLOCK and self._has_room(sequence, 0):
                due.append(sequence)
        if due:
            self._read(due, last=False)

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """Does nothing: `read` was told the states of the committed positions."""

    def forget(self, request_id: str) -> None:
        """Free the request's row."""
        self._lost.discard(request_id)
        self._drop(request_id)

    def _drop(self, request_id: str) -> None:
        row = self._rows.pop(request_id, None)
        if row is not None:
            self._cache.truncate(row.slot, 0)
            self._free.append(row.slot)

    def _row(self, request_id: str) -> Row:
        if request_id not in self._rows:
            self._rows[request_id] = Row(self._free.pop())
        return self._rows[request_id]

    def _has_room(self, sequence: Sequence, fed: int) -> bool:
        """Make room for all positions and `fed` draft tokens; without it, the request is lost."""
        row = self._rows[sequence.id]
        if self._cache.reserve(row.slot, int(self._cache.lengths[row.slot]) + row.count + fed):
            return True
        self._drop(sequence.id)
        self._lost.add(sequence.id)
        return False

    # --- drafting -----------------------------------------------------------------------------

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """Chains (width 1) or trees, with the context's noise; none without the target's states."""
        depth = max((useful_depth(s, shape) for s in sequences), default=0)
        fed = shape.width * (depth - 1)
        held = [b for b, s in enumerate(sequences) if depth and self._is_ready(s, fed)]
        return propose_some(
            sequences, held, context, lambda some, their: self._propose(some, depth, shape, their)
        )

    def _is_ready(self, sequence: Sequence, fed: int) -> bool:
        """Whether the states up to the last token's are here, of at least one new position."""
        row = self._rows.get(sequence.id)
        if row is None or not row.count:
            return False
        told = int(self._cache.lengths[row.slot]) + row.count
        assert told == len(sequence.tokens) - 1, (told, len(sequence.tokens))
        return self._has_room(sequence, fed)

    def _propose(
        self, sequences: list[Sequence], depth: int, shape: Shape, context: DraftContext
    ) -> list[Draft]:
        slots = np.array([self._rows[s.id].slot for s in sequences], dtype=np.int64)
        logits, states = self._read(sequences, last=True)
        generated = num_generated(sequences)
        if shape.width == 1:
            chain = Steps(self, slots, states)
            tokens, probs = grow_chain(logits, depth, generated, context, chain.feed_chain)
            return [
                chain_draft(tokens[b, :count], None if probs is None else probs[b, :count])
                for b, count in enumerate(useful_depth(s, shape) for s in sequences)
            ]
        steps = Steps(self, slots, states)
        feed, trust = steps.feed_tree, self._sharpness
        tree = grow_tree(logits, shape.width, depth, generated, context, feed, trust)
        kept = tree.best(shape.budget)
        return [
            clip(Draft(tokens=tokens, parents=parents), useful_depth(sequence, shape), levels)
            for sequence, _, _, tokens, parents, levels in zip(sequences, *kept, strict=True)
        ]

    def _read(self, sequences: list[Sequence], *, last: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the positions that wait, and keep their entries.

        Unless `last`, the last one of each waits on, because a draft needs its logits. Returns
        [B, V] logits after, and [B, D] states of, the last position of each that was read.
        """
        rows = [self._rows[s.id] for s in sequences]
        slots = np.array([row.slot for row in rows], dtype=np.int64)
        begins = self._cache.lengths[slots].tolist()
        hidden, news = [], []
        for sequence, row, begin in zip(sequences, rows, begins, strict=True):
            waiting = torch.cat(row.waiting)
            count = len(waiting) if last else len(waiting) - 1
            row.waiting = [] if last else [waiting[count:].clone()]
            row.text += sequence.tokens[len(row.text) + 1 :]
            hidden.append(waiting[:count])
            news.append(row.text[begin : begin + count])
        ends = np.cumsum([len(new) for new in news]) - 1
        batch = chains(slots, news, wanted=ends if last else np.zeros(0, dtype=np.int64))
        logits, states = self.score(batch, torch.cat(hidden))
        for row, new in zip(rows, news, strict=True):
            self._cache.commit(row.slot, np.arange(len(new)))
        return logits, states[torch.from_numpy(ends).to(states.device)]

    def score(self, batch: Batch, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass of the model over its cache."""
        self.passes += 1
        return self.model.score(self._cache, batch, hidden)


class Steps:
    """Feeds the drafter's own tokens and states back, level by level."""

    def __init__(self, drafter: EagleDrafter, slots: Ints, states: torch.Tensor) -> None:
        """`states` [B, D]: of the last verified position of each row."""
        self._drafter, self._slots, self._states = drafter, slots, states

    def feed_chain(self, tokens: Ints, scratch: int) -> torch.Tensor:
        """Feed one token for each row after `scratch` others; logits [B, V]."""
        seen = np.ones((1, scratch + 1), dtype=np.bool_)
        return self._feed(tokens, 1, (seen,) * len(self._slots), scratch, scratch)

    def feed_tree(self, tree: Tree) -> torch.Tensor:
        """Feed the tree's last level; logits [B * W, V]."""
        width, size = tree.width, tree.size
        old = size - width
        if old:  # each node goes on from its parent's state; the first level from the root's
            parents = tree.parents[:, old:size] - (old - width)  # [B, W] in the last level
            first = width * np.arange(len(self._slots))[:, None]
            self._states = self._states[torch.from_numpy((first + parents).reshape(-1))]
        else:
            self._states = self._states.repeat_interleave(width, dim=0)
        visible = tuple(tree.visible[:, old:size, :size])
        tokens = tree.tokens[:, old:size].reshape(-1)
        return self._feed(tokens, width, visible, size // width - 1, old)

    def _feed(
        self, tokens: Ints, width: int, visible: tuple[np.ndarray, ...], depth: int, scratch: int
    ) -> torch.Tensor:
        batch = Batch(
            rows=self._slots,
            counts=np.full(len(self._slots), width),
            tokens=tokens,
            depths=np.full(len(tokens), depth),
            visible=visible,
            scratch=scratch,
        )
        logits, self._states = self._drafter.score(batch, self._states)
        return logits
