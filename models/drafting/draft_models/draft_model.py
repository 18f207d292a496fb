"""Drafts chains and trees with a draft model of the same vocabulary.

A tree grows level by level: of all continuations of the last level, the W most likely ones are
kept. Under `match` both models take argmax(log p + g) with the same noise g. So the draft model
estimates the probability that the target chooses a token by softmax(s (log q + g)).
Letters: B sequences, K levels, W nodes a level, V vocabulary.
"""

from collections.abc import Sequence as Several
from functools import partial
from itertools import accumulate
from typing import cast

import numpy as np
import torch

from models.batch import Batch, Ints, chains
from models.compute.x86.drafts import Chooser, Trees
from models.drafting.draft import EMPTY, Draft, Shape, chain_draft
from models.drafting.drafter import DraftContext, clip, propose_some, useful_depth
from models.drafting.growth import grow_chain, grow_tree, num_generated
from models.drafting.tree import Tree
from models.engine_config import MAX_WIDTH
from models.requests.sequence import Sequence
from models.targets.target import ChoosingTarget, Target
from models.verify.round import Commit, Round, children

CHUNK = 256  # prompt tokens in one pass of prefill
FAR = 4  # chunks; a sequence that lacks more is read chunk by chunk, and has no draft meanwhile


class ModelDrafter:
    """A draft model with its cache."""

    max_width = MAX_WIDTH
    remote = False
    transfer_s = 0.0
    wants = None

    def __init__(
        self,
        model: Target,
        *,
        rows: int,
        capacity: int,
        name: str = "model",
        entries: int | None = None,
    ) -> None:
        """`entries`: of all rows of the cache together (None: every row can be full)."""
        self.name, self.model = name, model
        self.passes = 0
        self._cache = model.new_cache(rows, capacity, entries)
        self._free = list(range(rows))
        self._slots: dict[str, int] = {}
        self._fed: dict[str, Draft] = {}  # scratch nodes in the cache since the last commit

    @property
    def bytes_per_entry(self) -> int:
        return self.model.bytes_per_entry

    def forget(self, request_id: str) -> None:
        """Free the request's row."""
        slot = self._slots.pop(request_id, None)
        self._fed.pop(request_id, None)
        if slot is not None:
            self._cache.truncate(slot, 0)
            self._free.append(slot)

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """Does nothing: `propose` compares the fed draft tokens with the sequences."""

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """Chains (width 1) or trees, with the context's noise; none without room in the cache."""
        depth = max((useful_depth(s, shape) for s in sequences), default=0)
        if depth == 0:
            return [EMPTY] * len(sequences)
        fed = shape.width * (depth - 1)
        held = [
            b
            for b, sequence in enumerate(sequences)
            if self._has_room(sequence, fed) and self._is_near(sequence)
        ]
        return propose_some(
            sequences, held, context, lambda some, their: self._propose(some, depth, shape, their)
        )

    def _has_room(self, sequence: Sequence, fed: int) -> bool:
        """Make room for a sequence and `fed` draft tokens; if there is none, its row is freed."""
        if self._cache.reserve(self._slot(sequence), len(sequence.tokens) + fed):
            return True
        self.forget(sequence.id)
        return False

    def _is_near(self, sequence: Sequence) -> bool:
        """Whether few tokens are missing in the cache. If many are, a chunk of them is read now."""
        slot = self._slots[sequence.id]
        self._keep(sequence, slot)
        begin = int(self._cache.lengths[slot])
        if len(sequence.tokens) - begin <= FAR * CHUNK:
            return True
        self._read(_pass([sequence.tokens[begin : begin + CHUNK]], np.array([slot])))
        return False

    def _propose(
        self, sequences: Several[Sequence], depth: int, shape: Shape, context: DraftContext
    ) -> list[Draft]:
        slots = np.array([self._slot(s) for s in sequences], dtype=np.int64)
        news = self._catch_up(sequences, slots)
        chooser = self._chooser(news, context)
        if chooser is None:
            logits, generated = self._read(news), num_generated(sequences)
            if shape.width == 1:
                feed = partial(self._feed_chain, slots)
                chains_ = grow_chain(logits, depth, generated, context, feed)
                return self._cut_chains(sequences, *chains_, depth, shape)
            feed_level = partial(self._feed_level, slots)
            tree = grow_tree(logits, shape.width, depth, generated, context, feed_level)
            return self._cut_trees(sequences, tree.best(shape.budget), depth, shape)
        if shape.width == 1:
            drafts = self._cut_chains(sequences, chooser.chain(depth).T, None, depth, shape)
        else:
            trees = chooser.trees(shape.width, depth, shape.budget)
            drafts = self._cut_trees(sequences, trees, depth, shape)
        self.passes += depth
        self._commit(news)
        return drafts

    def _slot(self, sequence: Sequence) -> int:
        if sequence.id not in self._slots:
            self._slots[sequence.id] = self._free.pop()
            salt = sequence.request.cache_salt
            self._cache.begin(self._slots[sequence.id], sequence.tokens, salt)
        return self._slots[sequence.id]

    def _catch_up(self, sequences: Several[Sequence], slots: Ints) -> Batch:
        """Read all missing tokens but a chunk; returns a batch of the others, not yet run."""
        for sequence, slot in zip(sequences, slots.tolist(), strict=True):
            while len(sequence.tokens) - self._cache.lengths[slot] > CHUNK:
                begin = int(self._cache.lengths[slot])
                self._read(_pass([sequence.tokens[begin : begin + CHUNK]], np.array([slot])))
        begins = self._cache.lengths[slots].tolist()
        return _pass([s.tokens[at:] for s, at in zip(sequences, begins, strict=True)], slots)

    def _keep(self, sequence: Sequence, slot: int) -> None:
        """Commit the fed draft tokens that were accepted."""
        fed = self._fed.pop(sequence.id, None)
        if fed is None:
            return
        known, node, path = children(fed), 0, []
        for token in sequence.tokens[int(self._cache.lengths[slot]) : -1]:
            found = known.get((node, token))  # the last token is fed again for its logits
            if found is None:
                break
            node = found
            path.append(node - 1)  # the fed nodes have no root among them
        self._cache.commit(slot, np.array(path, dtype=np.int64))

    def _read(self, batch: Batch) -> torch.Tensor:
        """Feed committed tokens and keep their entries; logits [B, V] after each row's last."""
        logits = self.model.score(self._cache, batch).logits
        self.passes += 1
        self._commit(batch)
        return logits

    def _commit(self, batch: Batch) -> None:
        for slot, count in zip(batch.rows.tolist(), batch.counts.tolist(), strict=True):
            self._cache.commit(slot, np.arange(count))

    def _chooser(self, news: Batch, context: DraftContext) -> Chooser | None:
        """Drafts in one call; None if the model or the sampling options do not allow it."""
        if not getattr(self.model, "chooses", False):
            return None
        if context.sampled or not context.processor.simple:
            return None
        levels = np.zeros(len(context.owners), dtype=np.int64)
        draw = context.noise.draw(context.purpose, context.owners, levels)
        assert draw is not None  # where the model has compiled kernels, the noise has them too
        model = cast(ChoosingTarget, self.model)
        return model.chooser(self._cache, news, draw, context.processor.knobs)

    def _feed_chain(self, slots: Ints, tokens: Ints, scratch: int) -> torch.Tensor:
        """Feed one token for each row after `scratch` others; logits [B, V]."""
        row = np.ones((1, scratch + 1), dtype=np.bool_)
        batch = Batch(
            rows=slots,
            counts=np.ones(len(slots), dtype=np.int64),
            tokens=tokens,
            depths=np.full(len(slots), scratch),
            visible=(row,) * len(slots),
            scratch=scratch,
        )
        self.passes += 1
        return self.model.score(self._cache, batch).logits

    def _cut_chains(
        self,
        sequences: Several[Sequence],
        tokens: Ints,
        q: torch.Tensor | None,
        depth: int,
        shape: Shape,
    ) -> list[Draft]:
        """Each request's draft from chains [B, K]; notes which of its tokens are in the cache."""
        drafts = []
        for b, sequence in enumerate(sequences):
            self._fed[sequence.id] = chain_draft(tokens[b, : depth - 1])
            count = useful_depth(sequence, shape)
            row = None if q is None else q[b, :count]
            drafts.append(chain_draft(tokens[b, :count], row))
        return drafts

    def _cut_trees(
        self, sequences: Several[Sequence], trees: Trees, depth: int, shape: Shape
    ) -> list[Draft]:
        """Each request's draft from its tree; notes which of its nodes are in the cache."""
        drafts, fed = [], shape.width * (depth - 1)
        for sequence, tokens, parents, *kept in zip(sequences, *trees, strict=True):
            self._fed[sequence.id] = Draft(tokens=tokens[:fed], parents=parents[:fed])
            draft = Draft(tokens=kept[0], parents=kept[1])
            drafts.append(clip(draft, useful_depth(sequence, shape), kept[2]))
        return drafts

    def _feed_level(self, slots: Ints, tree: Tree) -> torch.Tensor:
        """Feed the tree's last level; logits [B * W, V]."""
        width, size = tree.width, tree.size
        batch = Batch(
            rows=slots,
            counts=np.full(len(slots), width),
            tokens=tree.tokens[:, size - width : size].reshape(-1),
            depths=np.full(len(slots) * width, size // width - 1),
            visible=tuple(tree.visible[:, size - width : size, :size]),
            scratch=size - width,
        )
        self.passes += 1
        return self.model.score(self._cache, batch).logits


def _pass(news: list[list[int]], slots: Ints) -> Batch:
    """A batch of the new tokens of each row, with logits after the last ones."""
    ends = list(accumulate(map(len, news)))
    return chains(slots, news, wanted=np.array(ends, dtype=np.int64) - 1)
