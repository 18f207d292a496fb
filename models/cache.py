"""The decoder's key-value memory: one tensor, committed entries first, scratch behind them."""

import numpy as np
import torch

from models import kernels
from models.batch import Ints
from models.config import DecoderConfig

BLOCK = 64  # attention reads keys in whole blocks of this many entries


def padded(entries: int) -> int:
    """The number of keys that attention reads for so many entries.

    Whole blocks; and never between 3 and 6 blocks of the 8 that the CPU kernel multiplies at once,
    where the library splits the sum over keys at a place that depends on their number. So a
    query's result does not depend on what else is in the batch.
    """
    whole = -(-entries // BLOCK) * BLOCK
    rest = whole % (8 * BLOCK)
    return whole - rest + 6 * BLOCK if 3 * BLOCK < rest < 6 * BLOCK else whole


def bytes_per_entry(config: DecoderConfig, dtype: torch.dtype) -> int:
    """What one token of one row takes."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize


def cache_bytes(config: DecoderConfig, dtype: torch.dtype, rows: int, capacity: int) -> int:
    """What a cache will take, before it is made."""
    return rows * padded(capacity) * bytes_per_entry(config, dtype)


class KVCache:
    """Keys and values of `rows` sequences: kv [layers, 2, rows, Hkv, padded capacity, D].

    A row's committed entries are 0..length-1, its scratch follows. All entries are finite from the
    start, so that a masked one contributes exactly nothing.
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
        """Keep the path `nodes` of a row's scratch (ascending), in order; drop the rest."""
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
        first = int(np.argmax(nodes != np.arange(count)))  # all before it stand in their places
        source = torch.from_numpy(nodes[first:] + start).to(self.kv.device)
        entries = self.kv[:, :, row].index_select(3, source)
        self.kv[:, :, row, :, start + first : start + count] = entries

    def truncate(self, row: int, length: int) -> None:
        """Forget the committed entries of a row beyond `length`."""
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
