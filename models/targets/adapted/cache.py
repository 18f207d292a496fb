"""The cache of an adapted model: rows of tokens, and the transformers cache of each row."""

from collections.abc import Sequence

import numpy as np
from transformers import DynamicCache

from models.batch import Ints


class Row:
    """One sequence: its committed tokens, its scratch nodes, and the model's own cache.

    `held` are the tokens that `past` has entries for. They may be fewer or more than `committed`.
    """

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.scratch: list[int] = []
        self.held: list[int] = []
        self.past = DynamicCache()

    def rewind(self, text: list[int], limit: int) -> int:
        """Cut `past` to its common prefix with `text`, at most `limit` entries; its length."""
        pairs = zip(self.held, text[:limit], strict=False)
        shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self.held), limit))
        if shared < len(self.held):
            self.past.crop(shared - len(self.held))
        self.held = text[:shared]
        return shared


class AdaptedCache:
    """Rows of tokens. The entries that the model has cached affect the speed only."""

    shares = False

    def __init__(
        self, rows: int, capacity: int, bytes_per_entry: int, entries: int | None = None
    ) -> None:
        self.lengths: Ints = np.zeros(rows, dtype=np.int64)
        self._rooms: Ints = np.zeros(rows, dtype=np.int64)  # entries reserved
        self._entries = rows * capacity if entries is None else entries
        self.texts = [Row() for _ in range(rows)]
        self._capacity, self._bytes_per_entry = capacity, bytes_per_entry

    @property
    def rows(self) -> int:
        return len(self.texts)

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def num_bytes(self) -> int:
        return self._entries * self._bytes_per_entry

    @property
    def usage(self) -> float:
        """The share of the entries that rows have reserved, 0 to 1."""
        return float(self._rooms.sum()) / self._entries

    def commit(self, row: int, nodes: Ints) -> None:
        """Keep the scratch nodes `nodes` (a path) of a row, in order; drop all others."""
        text = self.texts[row]
        self._set(row, text.committed + [text.scratch[node] for node in nodes.tolist()])

    def begin(
        self, row: int, tokens: Sequence[int], salt: bytes = b"", most: int | None = None
    ) -> int:
        """Nothing is shared: each row has a cache of its own."""
        return 0

    def reserve(self, row: int, entries: int) -> bool:
        """Count the entries as the row's; False if all rows together would have too many."""
        more = max(entries - int(self._rooms[row]), 0)
        if more + int(self._rooms.sum()) > self._entries:
            return False
        self._rooms[row] += more
        return True

    def truncate(self, row: int, length: int) -> None:
        """Drop the committed entries of a row beyond `length`."""
        self._set(row, self.texts[row].committed[:length])
        self._rooms[row] = min(length, int(self._rooms[row]))

    def move(self, source: int, destination: int) -> None:
        """Give a row's entries to another row, whose own are dropped."""
        if source != destination:
            self.texts[destination], self.texts[source] = self.texts[source], Row()
            self._set(destination, self.texts[destination].committed)
            self._rooms[destination] = self._rooms[source]
            self.lengths[source] = self._rooms[source] = 0

    def swap(self, first: int, second: int) -> None:
        """Exchange the entries of two rows."""
        self.texts[first], self.texts[second] = self.texts[second], self.texts[first]
        for of_rows in (self.lengths, self._rooms):
            of_rows[[first, second]] = of_rows[[second, first]]

    def _set(self, row: int, committed: list[int]) -> None:
        self.texts[row].committed, self.texts[row].scratch = committed, []
        self.lengths[row] = len(committed)
