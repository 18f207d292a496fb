"""The decoder's KV cache: blocks of entries from one pool, and each row's table of blocks."""

import math
from collections.abc import Sequence
from itertools import takewhile

import numpy as np
import torch

from models.batch import Batch, Ints
from models.memory.blocks import BLOCK, Blocks, key_after, num_blocks
from models.targets.decoder.config import DecoderConfig

LEAST = 16  # shared entries of a block that pay for its copy


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
    them and returned when it is truncated. Rows with the same text share its full blocks, which are
    never written to again. All entries are initialised with finite numbers, so a masked entry
    contributes exactly 0.
    """

    shares = True

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
        self.lengths: Ints = np.zeros(rows, dtype=np.int64)
        self.tables: Ints = np.zeros((rows, longest), dtype=np.int64)
        self.rooms: Ints = np.zeros(rows, dtype=np.int64)  # entries that a row's blocks hold
        self.depths: Ints = np.zeros((rows, longest * BLOCK), dtype=np.int64)  # of scratch nodes
        self._blocks, self._capacity = Blocks(count), capacity
        self._texts: list[Sequence[int]] = [()] * rows  # the tokens of the entries, if known
        self._keys: list[list[bytes]] = [[] for _ in range(rows)]  # of the full blocks
        self._salts = [b""] * rows  # only texts of one salt share blocks

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
        """Entries of the pool that no row uses."""
        return self._blocks.num_free * BLOCK

    @property
    def usage(self) -> float:
        """The share of the pool's blocks that rows use, 0 to 1."""
        return 1.0 - self._blocks.num_free / self._blocks.count

    def begin(
        self, row: int, tokens: Sequence[int], salt: bytes = b"", most: int | None = None
    ) -> int:
        """The entries of an empty row will be those of `tokens`, which may grow.

        Takes over the entries of as many of them as are in memory under the same salt, except the
        last one's; `most`: at most so many. Returns their number.
        """
        assert not self.rooms[row], row
        keys: list[bytes] = []
        self._texts[row], self._keys[row], self._salts[row] = tokens, keys, salt
        limit = max(len(tokens) - 1, 0)
        limit = limit if most is None else min(limit, most)
        while (len(keys) + 1) * BLOCK <= limit:
            key = key_after(keys, tokens, salt)
            block = self._blocks.find(key)
            if block is None:
                break
            self.tables[row, len(keys)] = block
            keys.append(key)
        self.lengths[row] = self.rooms[row] = len(keys) * BLOCK
        self._copy_rest(row, limit)
        return int(self.lengths[row])

    def _copy_rest(self, row: int, limit: int) -> None:
        """Copy the first entries of the next block from another row that has the same text."""
        start = int(self.lengths[row])
        found = [(self._same(row, other, start, limit), other) for other in range(self.rows)]
        most, other = max(found)
        if most < LEAST or not self.reserve(row, start + 1):
            return
        self._copy_block(int(self.tables[other, start // BLOCK]), row, start // BLOCK)
        self.lengths[row] = start + most

    def _same(self, row: int, other: int, start: int, limit: int) -> int:
        """How many tokens from `start` on, within a block, another row has in the same text."""
        keys, theirs = self._keys[row], self._keys[other]
        if other == row or self._salts[other] != self._salts[row]:
            return 0
        if theirs[: len(keys)][-1:] != keys[-1:]:
            return 0
        stop = min(limit, start + BLOCK, int(self.lengths[other]), len(self._texts[other]))
        pairs = zip(self._texts[row][start:stop], self._texts[other][start:stop], strict=True)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _copy_block(self, block: int, row: int, index: int) -> None:
        """Copy a block over the block `index` of a row."""
        self.copy_block(block, int(self.tables[row, index]))

    def copy_block(self, source: int, target: int) -> None:
        """Copy the entries of a block of the pool to another block."""
        self.kv[:, :, :, target] = self.kv[:, :, :, source]

    def copy_entries(self, source: Ints, target: Ints) -> None:
        """Copy entries of the pool: from slots `source` [n] to slots `target` [n], all at once."""
        slots, device = self.kv.flatten(3, 4), self.kv.device
        found = slots.index_select(3, torch.from_numpy(source).to(device))
        slots.index_copy_(3, torch.from_numpy(target).to(device), found)

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
        rows, more = batch.rows, more + batch.scratch
        # Python's integers: numpy's operations take ten times as long for a few rows.
        of_rows = (rows, self.rooms[rows], self.lengths[rows], batch.counts)
        for row, room, length, count in zip(*(each.tolist() for each in of_rows), strict=True):
            if length + count + more > room:
                held = self.reserve(row, length + count + more)
                assert held, "no free blocks: `reserve` comes first"

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
        self.lengths[row] = end = start + count
        if end // BLOCK > len(self._keys[row]):
            self._note_full(row, end)

    def _note_full(self, row: int, end: int) -> None:
        """Note the contents of the full blocks of a row of `end` entries, if they are known."""
        keys, text = self._keys[row], self._texts[row]
        while (len(keys) + 1) * BLOCK <= min(end, len(text)):
            keys.append(key_after(keys, text, self._salts[row]))
            self._blocks.note(int(self.tables[row, len(keys) - 1]), keys[-1])

    def _keep(self, row: int, start: int, nodes: Ints) -> None:
        count = len(nodes)
        first = int(np.argmax(nodes != np.arange(count)))  # all before it need no move
        places = start + np.arange(first, count)
        self.copy_entries(self.slots(row, start + nodes[first:]), self.slots(row, places))

    def truncate(self, row: int, length: int) -> None:
        """Drop the committed entries of a row beyond `length`, and free the blocks behind them."""
        assert 0 <= length <= self.lengths[row], (length, self.lengths[row])
        self.lengths[row] = length
        first, last = num_blocks(length), int(self.rooms[row]) // BLOCK
        self._blocks.release(self.tables[row, first:last].tolist())
        self.rooms[row] = first * BLOCK
        del self._keys[row][length // BLOCK :]
        if length == 0:
            self._texts[row], self._salts[row] = (), b""
        elif length % BLOCK and self._blocks.is_fixed(int(self.tables[row, first - 1])):
            self._own_last(row, first - 1)

    def _own_last(self, row: int, index: int) -> None:
        """Replace the last block of a row by a copy that it may write to."""
        block = int(self.tables[row, index])
        taken = self._blocks.take(1)
        assert taken is not None, "no free block for a copy"
        self.tables[row, index] = taken[0]
        self._copy_block(block, row, index)
        self._blocks.release([block])

    def move(self, source: int, destination: int) -> None:
        """Give a row's entries to another row, whose own are dropped. Copies no entries."""
        if source == destination:
            return
        self.truncate(destination, 0)
        self.swap(source, destination)

    def swap(self, first: int, second: int) -> None:
        """Exchange the entries of two rows. Copies no entries."""
        for of_rows in (self.tables, self.rooms, self.lengths):
            of_rows[[first, second]] = of_rows[[second, first]]
        texts, keys, salts = self._texts, self._keys, self._salts
        texts[first], texts[second] = texts[second], texts[first]
        keys[first], keys[second] = keys[second], keys[first]
        salts[first], salts[second] = salts[second], salts[first]


def _zeros(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on CPU, memory that the system provides only once it is written."""
    if device.type != "cpu":
        return torch.zeros(sizes, dtype=dtype, device=device)
    line, size = 64, math.prod(sizes) * dtype.itemsize
    memory = np.zeros(size + line, dtype=np.uint8)
    start = -memory.ctypes.data % line
    return torch.from_numpy(memory[start : start + size]).view(dtype).view(sizes)
