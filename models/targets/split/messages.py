"""What the first rank of a group tells the others. Letters: B rows of a batch, n entries."""

from collections.abc import Callable
from dataclasses import dataclass

from models.batch import Batch, Ints
from models.memory.cache import KVCache

Change = Callable[[KVCache], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCache:
    """Allocate a cache, known by `key`; see `Target.new_cache`."""

    key: int
    rows: int
    capacity: int
    entries: int | None


@dataclass(frozen=True, slots=True)
class CopyBlock:
    """Copy a block of a cache's pool to another one."""

    source: int
    target: int

    def __call__(self, cache: KVCache) -> None:
        cache.copy_block(self.source, self.target)


@dataclass(frozen=True, slots=True)
class CopyEntries:
    """Copy entries of a cache's pool, from slots [n] to slots [n]."""

    source: Ints
    target: Ints

    def __call__(self, cache: KVCache) -> None:
        cache.copy_entries(self.source, self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Score a batch, after what happened to its cache since the last pass.

    The first rank alone decides which blocks a row has: the other ranks take over the lengths,
    rooms and tables of the batch's rows, and the depths of their scratch nodes.
    """

    key: int
    changes: tuple[Change, ...]
    batch: Batch
    lengths: Ints  # [B]
    rooms: Ints  # [B]
    tables: Ints  # [B, most blocks of a row]
    depths: Ints  # [B, batch.scratch]
    dropped: tuple[int, ...]  # keys of caches that are not used any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Run an adapted model on tokens [n] after the first `length` entries of a row's own cache.

    `key`: of that cache, which is made where there is none yet; None: run without a cache.
    """

    key: int | None
    length: int
    tokens: Ints
    dropped: tuple[int, ...]  # keys of caches that are not used any more


@dataclass(frozen=True, slots=True)
class Stop:
    """There are no more passes."""


KINDS = {kind.__name__: kind for kind in (NewCache, CopyBlock, CopyEntries, Pass, Batch, Run, Stop)}
