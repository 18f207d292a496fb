"""Frequencies of tokens by position: distances between such tables, and their entropy.

Letters: R subsets, N rows, C cells of a table.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from models.metrics.resample import Bools, Floats, Ints

MAX_VALUES = 2**23  # counts in memory at once


def positions(rows: Sequence[Ints]) -> tuple[Ints, Ints]:
    """(row, cell) of every token, with a cell for each position and token. Rows have one length."""
    grid = np.stack(rows)  # [N, L]
    cells = np.arange(grid.shape[1]) * (int(grid.max()) + 1) + grid
    return np.repeat(np.arange(len(grid)), grid.shape[1]), cells.ravel()


def bigrams(rows: Sequence[Ints]) -> tuple[Ints, Ints]:
    """(row, cell) of every token with a predecessor, with a cell for each pair."""
    owner = np.repeat(np.arange(len(rows)), [max(0, len(row) - 1) for row in rows])
    size = max((int(row.max()) for row in rows if len(row)), default=0) + 1
    pairs = [row[:-1] * size + row[1:] for row in rows]
    return owner, np.concatenate(pairs)


class Table:
    """Counts of cells in subsets of rows."""

    def __init__(self, owner: Ints, cells: Ints, num_rows: int) -> None:
        kinds, column = np.unique(cells, return_inverse=True)
        ones = np.ones(len(owner))
        self._cells = csr_array((ones, (owner, column)), shape=(num_rows, len(kinds)))
        self.num_cells = len(kinds)

    def parts(self, num_subsets: int) -> list[slice]:
        """Slices of subsets whose counts fit MAX_VALUES."""
        step = max(1, MAX_VALUES // self.num_cells)
        return [slice(i, i + step) for i in range(0, num_subsets, step)]

    def counts(self, rows: Bools) -> Floats:
        """[R, C] for subsets [R, N]."""
        counts: Floats = (self._cells.T @ rows.T.astype(np.float64)).T
        return counts

    def shares(self, rows: Bools) -> Floats:
        """[R, C] frequencies; rows sum to 1."""
        counts = self.counts(rows)
        shares: Floats = counts / counts.sum(axis=1, keepdims=True)
        return shares


class TableDistance:
    """Total variation between the tables of subsets of a pool and of a reference."""

    def __init__(self, owner: Ints, cells: Ints, *, num_pool: int, num_reference: int) -> None:
        """The cells of the pool's rows, followed by those of the reference."""
        self._table = Table(owner, cells, num_pool + num_reference)
        self._num_pool, self._num_reference = num_pool, num_reference

    def __call__(self, rows: Bools, reference: Bools) -> Floats:
        """[R] for rows [R, 2n] and reference [R, m]."""
        parts = self._table.parts(len(rows))
        return np.concatenate([self._distances(rows[part], reference[part]) for part in parts])

    def _distances(self, rows: Bools, reference: Bools) -> Floats:
        a = self._table.shares(np.pad(rows, ((0, 0), (0, self._num_reference))))
        b = self._table.shares(np.pad(reference, ((0, 0), (self._num_pool, 0))))
        return total_variation(a, b)


class PositionEntropy:
    """Entropy of the tokens at a position, mean over positions, for subsets of rows."""

    def __init__(self, rows: Sequence[Ints]) -> None:
        self._table = Table(*positions(rows), len(rows))
        self._length = len(rows[0])

    def __call__(self, rows: Bools, reference: Bools) -> Floats:
        """[R] nats, for rows [R, 2n]."""
        parts = self._table.parts(len(rows))
        return np.concatenate([self._entropies(rows[part]) for part in parts])

    def _entropies(self, rows: Bools) -> Floats:
        shares = self._table.counts(rows) / rows.sum(axis=1, keepdims=True)  # 1 at each position
        return entropy(shares) / self._length


def total_variation(a: Floats, b: Floats) -> Floats:
    """Half the sum of absolute differences of shares [..., C]."""
    distance: Floats = np.abs(a - b).sum(axis=-1) / 2
    return distance


def entropy(shares: Floats) -> Floats:
    """-sum p log p of [..., C], nats."""
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    value: Floats = -(shares * logs).sum(axis=-1)
    return value
