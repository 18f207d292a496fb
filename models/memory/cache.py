"""The decoder's KV cache: one tensor. In each row, committed entries come before scratch."""

import numpy as np
import torch

from models.batch import Ints
from models.compute.x86 import kernels
from models.targets.decoder.config import DecoderConfig

BLOCK = 64  # attention reads keys in whole blocks of this many entries


def padded(entries: int) -> int:
    """The number of keys that torch's attention reads for a number of entries.

    It is a whole number of blocks, and never between 3 and 6 blocks of the 8 that torch's CPU
    kernel multiplies at once. There the kernel splits the sum over keys at a point that depends on
    their number, and a query's result would depend on the rest of the batch.
    """
    whole = -(-entries // BLOCK) * BLOCK
    rest = whole % (8 * BLOCK)
    return whole - rest + 6 * BLOCK if 3 * BLOCK < rest < 6 * BLOCK else whole


def bytes_per_entry(config: DecoderConfig, dtype: torch.dtype) -> int:
    """Bytes of one token of one row."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize


def cache_bytes(config: DecoderConfig, dtype: torch.dtype, rows: int, capacity: int) -> int:
    """Bytes of a cache, before it is allocated."""
    return rows * padded(capacity) * bytes_per_entry(config, dtype)


class KVCache:
    """Keys and values of `rows` sequences: kv [layers, 2, rows, Hkv, padded capacity, D].

    A row's committed entries are 0..length-1, its scratch follows. All entries are initialised
    with finite numbers, so a masked entry contributes exactly 0.
    """

    def __init__(
        self,
        config: DecoderConfig,
        rows: int,
        capacity: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (config.num_layers, 2, rows, config.num_kv_heads, padded(capacity), config.head_dim)
        self.kv = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths: Ints = np.zeros(rows, dtype=np.int64)
        self._places = np.arange(shape[4])  # 0, 1, 2...
        self.positions: Ints = np.tile(self._places, (rows, 1))  # of every entry
        self._capacity = capacity

    @property
    def rows(self) -> int:
        return self.kv.shape[2]

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def num_bytes(self) -> int:
        return self.kv.nbytes

    def commit(self, row: int, nodes: Ints) -> None:
        """Keep the scratch nodes `nodes` (a path, ascending) of a row; drop all others."""
        start, count = int(self.lengths[row]), len(nodes)
        assert start + count <= self.capacity, (start, count, self.capacity)
        if count and int(nodes[-1]) != count - 1:
            self._keep(row, start, nodes)
        self.positions[row, start : start + count] = self._places[start : start + count]
        self.lengths[row] = start + count

    def _keep(self, row: int, start: int, nodes: Ints) -> None:
        if self.kv.is_cpu and kernels.compiled():
            kernels.keep_entries(self.kv, row, start, nodes)
            return
        count = len(nodes)
        first = int(np.argmax(nodes != np.arange(count)))  # all before it need no move
        source = torch.from_numpy(nodes[first:] + start).to(self.kv.device)
        entries = self.kv[:, :, row].index_select(3, source)
        self.kv[:, :, row, :, start + first : start + count] = entries

    def truncate(self, row: int, length: int) -> None:
        """Drop the committed entries of a row beyond `length`."""
        assert 0 <= length <= self.lengths[row], (length, self.lengths[row])
        self.lengths[row] = length

    def move(self, source: int, destination: int) -> None:
        """Copy a row's committed entries over another row and empty the source."""
        if source == destination:
            return
        length = int(self.lengths[source])
        self.kv[:, :, destination, :, :length] = self.kv[:, :, source, :, :length]
        self.positions[destination, :length] = self._places[:length]
        self.lengths[destination] = length
        self.lengths[source] = 0
