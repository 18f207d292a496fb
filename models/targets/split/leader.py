"""The first rank of a split decoder: a target that has the other ranks score along.

The token loop, drafters and verification run here alone and see an ordinary target. The other ranks
are told each pass (models/targets/split/follower.py). Letters: B rows of a batch.
"""

import weakref
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import torch

from models.batch import Batch, Ints, Scores
from models.memory.blocks import BLOCK
from models.memory.cache import KVCache
from models.targets.decoder.config import DecoderConfig
from models.targets.split.messages import Change, CopyBlock, CopyEntries, NewCache, Pass, Stop
from models.targets.split.rank import RankDecoder
from models.targets.split.wire import encode
from models.targets.target import Cache


class LedCache(KVCache):
    """The first rank's part of a cache; notes what the other ranks' parts must follow."""

    def __init__(self, key: int, config: DecoderConfig, *sizes: int, **options: Any) -> None:
        super().__init__(config, *sizes, **options)
        self.key = key
        self._changes: list[Change] = []

    def copy_block(self, source: int, target: int) -> None:
        super().copy_block(source, target)
        self._changes.append(CopyBlock(source, target))

    def copy_entries(self, source: Ints, target: Ints) -> None:
        super().copy_entries(source, target)
        self._changes.append(CopyEntries(source, target))

    def pass_over(self, batch: Batch, dropped: tuple[int, ...]) -> Pass:
        """What the other ranks need for a pass; makes room for the batch's nodes."""
        self.hold(batch)
        changes, self._changes = tuple(self._changes), []
        rows = batch.rows
        blocks = int(self.rooms[rows].max()) // BLOCK
        scratch = self.lengths[rows, None] + np.arange(batch.scratch)  # [B, scratch]
        return Pass(
            key=self.key,
            changes=changes,
            batch=replace(batch, readout=None),
            lengths=self.lengths[rows],
            rooms=self.rooms[rows],
            tables=self.tables[rows, :blocks],
            depths=self.depths[rows[:, None], scratch],
            dropped=dropped,
        )


class LeadingDecoder(RankDecoder):
    """A target: the first rank's part of a decoder, and the other ranks behind it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._keys = count()
        self._dropped: list[int] = []

    def new_cache(self, rows: int, capacity: int, entries: int | None = None) -> LedCache:
        """An empty cache: each rank holds the entries of its own heads."""
        self.rotary.reserve(capacity)
        key = next(self._keys)
        made = NewCache(key=key, rows=rows, capacity=capacity, entries=entries)
        self.group.tell(encode(made))
        cache = LedCache(
            key,
            self.config,
            rows,
            capacity,
            dtype=self.dtype,
            device=self.device,
            entries=entries,
        )
        weakref.finalize(cache, self._dropped.append, key)
        return cache

    @torch.inference_mode()
    def score(self, cache: Cache, batch: Batch) -> Scores:
        """Have all ranks run the batch's nodes; see `Target`."""
        assert isinstance(cache, LedCache)
        if batch.readout is not None:
            batch.readout.check(self.num_layers)  # before the others begin
        dropped = tuple(self._dropped)
        del self._dropped[: len(dropped)]
        self.group.tell(encode(cache.pass_over(batch, dropped)))
        return super().score(cache, batch)

    def stop(self) -> None:
        """Let the other ranks end."""
        self.group.tell(encode(Stop()))
