"""The decoder's KV cache: blocks of entries from one pool, and each row's table of blocks."""

import math

import numpy as np
import torch

from models.batch import Batch, Ints
from models.compute.x86 import kernels
from models.memory.blocks import BLOCK, Blocks, num_blocks
from models.targets.decoder.config import DecoderConfig


def padded(entries: int) -> int:
    """The number of keys that torch's attention reads for a number of entries.

    It is a whole number of blocks, and never between 3 and 6 blocks of the 8 that torch's CPU
    kernel multiplies at once. There the kernel splits the sum over keys at a point that depends on
    their number, and a query's result would depend on the rest of the batch.
    """
    whole = num_blocks(entries) * BLOCK
    rest = whole % (8 * BLOCK)
    return whole - rest + 6 * BLOCK if 3 * BLOCK < rest < 6 * BLOCK else whole


def bytes_per_entry(config: DecoderConfig, dtype: torch.dtype) -> int:
    """Bytes of one token of one row."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize


def cache_bytes(config: DecoderConfig, dtype: torch.dtype, rows: int, capacity: int) -> int:
    """Bytes of a cache in which every row can be full, before it is allocated."""
    return rows * num_blocks(capacity) * BLOCK * bytes_per_entry(config, dtype)


class KVCache:
    """Keys and values of `rows` sequences: kv [layers, 2, Hkv, blocks, BLOCK, D].

    Entry i of a row is entry i % BLOCK of block `tables[row, i // BLOCK]`. A row's committed
    entries are 0..length-1, its scratch follows. Blocks are taken from the pool when a row needs
    them and returned when it is truncated. All entries are initialised with finite numbers, so a
    masked entry contributes exactly 0.
    """

    def __init__(
        self,
        config: DecoderConfig,
        rows: int,
        capacity: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        entries: int | None = None,
    ) -> None:
        """`entries`: of all rows together, rounded up to blocks (None: every row can be full)."""
        longest = num_blocks(capacity)
        count = rows * longest if entries is None else num_blocks(entries)
        sizes = (config.num_layers, 2, config.num_kv_heads, count, BLOCK, config.head_dim)
        self.kv = _zeros(sizes, dtype, device)
        self.layers = self.kv.flatten(3, 4).unbind(0)  # [2, Hkv, slots, D] each
        self.lengths: Ints = np.zeros(rows, dtype=np.int64)
        self.tables: Ints = np.zeros((rows, longest), dtype=np.int64)
        self.rooms: Ints = np.zeros(rows, dtype=np.int64)  # entries that a row's blocks hold
        self.depths: Ints = np.zeros((rows, longest * BLOCK), dtype=np.int64)  # of scratch nodes
        self._blocks, self._capacity = Blocks(count), capacity

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def num_bytes(self) -> int:
        return self.kv.nbytes

    @property
    def num_free(self) -> int:
        """Entries of the pool that no row holds."""
        return self._blocks.num_free * BLOCK

    def reserve(self, row: int, entries: int) -> bool:
        """Make room for `entries` entries of a row; False if the pool has too few blocks."""
        room = int(self.rooms[row])
        if entries <= room:
            return True
        assert entries <= self.capacity, (entries, self.capacity)
        first, last = room // BLOCK, num_blocks(entries)
        taken = self._blocks.take(last - first)
        if taken is None:
            return False
        self.tables[row, first:last] = taken
        self.rooms[row] = last * BLOCK
        return True

    def hold(self, batch: Batch, more: int = 0) -> None:
        """Make room for the nodes of a batch, and for `more` nodes after those of each row."""
        needs = self.lengths[batch.rows] + batch.counts + (batch.scratch + more)
        short = needs > self.rooms[batch.rows]
        if short.any():
            for row, need in zip(batch.rows[short].tolist(), needs[short].tolist(), strict=True):
                assert self.reserve(row, need), "no free blocks: `reserve` comes first"

    def slots(self, row: int, places: Ints) -> Ints:
        """Where entries of a row are in the pool."""
        found: Ints = self.tables[row, places // BLOCK] * BLOCK + places % BLOCK
        return found

    def commit(self, row: int, nodes: Ints) -> None:
        """Keep the scratch nodes `nodes` (a path, ascending) of a row; drop all others."""
        start, count = int(self.lengths[row]), len(nodes)
        assert start + count <= self.rooms[row], (start, count, self.rooms[row])
        if count and int(nodes[-1]) != count - 1:
            self._keep(row, start, nodes)
        self.lengths[row] = start + count

    def _keep(self, row: int, start: int, nodes: Ints) -> None:
        if self.kv.is_cpu and kernels.compiled():
            kernels.keep_entries(self.kv, self.tables[row], start, nodes)
            return
        count = len(nodes)
        first = int(np.argmax(nodes != np.arange(count)))  # all before it need no move
        source = torch.from_numpy(self.slots(row, start + nodes[first:])).to(self.kv.device)
        target = torch.from_numpy(self.slots(row, start + np.arange(first, count)))
        slots = self.kv.flatten(3, 4)
        slots.index_copy_(3, target.to(self.kv.device), slots.index_select(3, source))

    def truncate(self, row: int, length: int) -> None:
        """Drop the committed entries of a row beyond `length`, and free the blocks behind them."""
        assert 0 <= length <= self.lengths[row], (length, self.lengths[row])
        self.lengths[row] = length
        first, last = num_blocks(length), int(self.rooms[row]) // BLOCK
        self._blocks.release(self.tables[row, first:last].tolist())
        self.rooms[row] = first * BLOCK

    def move(self, source: int, destination: int) -> None:
        """Give a row's entries to another row, whose own are dropped. Copies no entries."""
        if source == destination:
            return
        self.truncate(destination, 0)
        for of_rows in (self.tables, self.rooms, self.lengths):
            of_rows[destination] = of_rows[source]
        self.rooms[source] = self.lengths[source] = 0


def _zeros(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on CPU, memory that the system provides only once it is written."""
    if device.type != "cpu":
        return torch.zeros(sizes, dtype=dtype, device=device)
    line, size = 64, math.prod(sizes) * dtype.itemsize
    memory = np.zeros(size + line, dtype=np.uint8)
    start = -memory.ctypes.data % line
    return torch.from_numpy(memory[start : start + size]).view(dtype).view(sizes)
