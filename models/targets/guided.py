"""Classifier-free guidance: a target that scores every request twice and combines the logits.

Two cache rows, with the condition and without, hold the same tokens and count as one request:
logits = without + scale * (with - without). Source: Ho & Salimans 2022, arXiv 2207.12598, in the
logit form used by autoregressive image models. Letters: B rows, T nodes, W wanted, V vocabulary.
"""

from collections.abc import Sequence as Several
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from models.batch import Batch, Ints, Scores
from models.errors import InvalidOption
from models.memory.blocks import BLOCK, num_blocks
from models.readout import Readout, top_of
from models.targets.target import Cache, Target


class PairedCache:
    """A cache whose row r stands for rows 2r (with the condition) and 2r + 1 (without)."""

    shares = False

    def __init__(self, inner: Cache) -> None:
        self.inner = inner

    @property
    def lengths(self) -> Ints:
        """[rows] committed entries: the same in both halves."""
        return self.inner.lengths[::2]

    @property
    def rows(self) -> int:
        return self.inner.rows // 2

    @property
    def capacity(self) -> int:
        return self.inner.capacity

    @property
    def usage(self) -> float:
        return self.inner.usage

    @property
    def num_bytes(self) -> int:
        return self.inner.num_bytes

    def commit(self, row: int, nodes: Ints) -> None:
        """Keep the same nodes in both halves."""
        for half in (2 * row, 2 * row + 1):
            self.inner.commit(half, nodes)

    def begin(
        self, row: int, tokens: Several[int], salt: bytes = b"", most: int | None = None
    ) -> int:
        """Nothing is shared: the entries depend on the condition, and differ between the halves."""
        return 0

    def reserve(self, row: int, entries: int) -> bool:
        """Make the same room in both halves."""
        return all(self.inner.reserve(half, entries) for half in (2 * row, 2 * row + 1))

    def truncate(self, row: int, length: int) -> None:
        """Forget the same entries in both halves."""
        for half in (2 * row, 2 * row + 1):
            self.inner.truncate(half, length)

    def move(self, source: int, destination: int) -> None:
        """Move both halves."""
        for half in (0, 1):
            self.inner.move(2 * source + half, 2 * destination + half)

    def swap(self, first: int, second: int) -> None:
        """Exchange both halves."""
        for half in (0, 1):
            self.inner.swap(2 * first + half, 2 * second + half)


class GuidedTarget:
    """A target with guidance. Its callers see one row for each request."""

    chooses = False  # the compiled drafts read one row for each request

    def __init__(self, inner: Target, *, scale: float, null_token: int) -> None:
        """`null_token` replaces every condition (a prompt id >= the vocabulary) in the half without
        one.
        """
        self.inner, self.scale, self.null_token = inner, scale, null_token

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)  # vocabulary, device, ... are those of the inner target

    @property
    def bytes_per_entry(self) -> int:
        return 2 * self.inner.bytes_per_entry

    def new_cache(self, rows: int, capacity: int, entries: int | None = None) -> PairedCache:
        """A cache of pairs; each half of a pair has blocks of its own."""
        both = None if entries is None else 2 * num_blocks(entries) * BLOCK
        return PairedCache(self.inner.new_cache(2 * rows, capacity, both))

    def score(self, cache: Cache, batch: Batch) -> Scores:
        """One pass over both halves.

        Hidden states are those of the half with the condition: the other half has not read what the
        request asks for. The likeliest tokens are those of the combined logits.
        """
        assert isinstance(cache, PairedCache)
        first = np.cumsum(batch.counts) - batch.counts  # [B] each row's first node
        nodes = [np.arange(f, f + c) for f, c in zip(first, batch.counts, strict=True)]
        both = np.concatenate([np.concatenate([n, n]) for n in nodes])  # [2T] original node
        bare = np.concatenate([np.repeat([False, True], c) for c in batch.counts])  # [2T]
        tokens = np.where(
            bare & (batch.tokens[both] >= self.inner.vocab_size),
            self.null_token,
            batch.tokens[both],
        )
        wanted = np.arange(len(batch.tokens)) if batch.wanted is None else batch.wanted
        place = np.argsort(both + len(batch.tokens) * bare, kind="stable").reshape(2, -1)  # [2, T]
        pair = replace(
            batch,
            rows=np.stack([2 * batch.rows, 2 * batch.rows + 1], axis=1).reshape(-1),
            counts=np.repeat(batch.counts, 2),
            tokens=tokens,
            depths=batch.depths[both],
            visible=tuple(v for seen in batch.visible for v in (seen, seen)),
            wanted=place[:, wanted].reshape(-1),
            inputs=None if batch.inputs is None else batch.inputs[torch.from_numpy(both)],
            conditions=self._paired(batch.conditions),
            readout=_layers_of(batch.readout),
        )
        scores = self.inner.score(cache.inner, pair)
        halves = scores.logits.view(2, len(wanted), self.inner.vocab_size)
        with_, without = halves.unbind(0)  # [W, V] each
        states = None if scores.states is None else scores.states[torch.from_numpy(place[0])]
        # Three operations, each rounded separately: a fused one differs between kinds of CPU.
        logits = without + self.scale * (with_ - without)
        return Scores(logits, states, top_of(logits, batch.readout))

    def _paired(self, conditions: Ints | None) -> Ints | None:
        """[2B] each row's condition, followed by the null token."""
        if conditions is None:
            return None
        return np.stack([conditions, np.full_like(conditions, self.null_token)], axis=1).reshape(-1)


def _layers_of(readout: Readout | None) -> Readout | None:
    """What the inner target is asked for: hidden states, but no likeliest tokens."""
    return Readout(layers=readout.layers) if readout is not None and readout.layers else None


def guide(target: Target, scale: float) -> Target:
    """The target with guidance; the target itself if the scale is 1 (off).

    Raises:
        InvalidOption: the target reads no conditions.
    """
    if scale == 1.0:
        return target
    if target.input_size <= target.vocab_size:
        told = "1: this target has no null class, so guidance is not available"
        raise InvalidOption("guidance", scale, told)
    nothing = target.input_size - 1  # the last condition is the null class
    return cast(Target, GuidedTarget(target, scale=scale, null_token=nothing))
