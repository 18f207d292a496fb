"""The other ranks of a split decoder: they do what the first one tells them."""

import numpy as np

from models.memory.cache import KVCache
from models.targets.split.messages import KINDS, NewCache, Pass, Stop
from models.targets.split.rank import RankDecoder
from models.targets.split.wire import decode


def follow(decoder: RankDecoder) -> None:
    """Score what the first rank scores, until it says that there is no more.

    Raises RuntimeError if the first rank's process ends.
    """
    caches: dict[int, KVCache] = {}
    while not isinstance(message := decode(decoder.group.hear(), KINDS), Stop):
        if isinstance(message, NewCache):
            made = decoder.new_cache(message.rows, message.capacity, message.entries)
            caches[message.key] = made
            continue
        for key in message.dropped:
            del caches[key]
        cache = caches[message.key]
        take_over(cache, message)
        decoder.score(cache, message.batch)


def take_over(cache: KVCache, told: Pass) -> None:
    """Bring a cache into the state that the first rank's had before this pass."""
    rows = told.batch.rows
    for change in told.changes:
        change(cache)
    cache.lengths[rows], cache.rooms[rows] = told.lengths, told.rooms
    cache.tables[rows, : told.tables.shape[1]] = told.tables
    if told.batch.scratch:
        scratch = told.lengths[:, None] + np.arange(told.batch.scratch)
        cache.depths[rows[:, None], scratch] = told.depths
    assert (told.lengths + told.batch.counts + told.batch.scratch <= told.rooms).all()
