"""What an adapted model is asked to continue: rows of tokens, and its memory of some of them."""

import numpy as np
from transformers import DynamicCache

from models.batch import Ints


class Row:
    """One sequence: its committed tokens, its scratch nodes, and the model's memory of some text.

    `held` are the tokens whose entries `past` has; it may lag behind or run ahead of `committed`.
    """

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.scratch: list[int] = []
        self.held: list[int] = []
        self.past = DynamicCache()

    def rewind(self, text: list[int], limit: int) -> int:
        """Cut `past` back to what it shares with `text`, at most `limit` entries; how many."""
        pairs = zip(self.held, text[:limit], strict=False)
        shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self.held), limit))
        if shared < len(self.held):
            self.past.crop(shared - len(self.held))
        self.held = text[:shared]
        return shared


class AdaptedCache:
    """Rows of tokens; what the model remembers of them is a matter of speed alone."""

    def __init__(self, rows: int, capacity: int, bytes_per_entry: int) -> None:
        self.lengths: Ints = np.zeros(rows, dtype=np.int64)
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
        return self.rows * self.capacity * self._bytes_per_entry

    def commit(self, row: int, nodes: Ints) -> None:
        """Keep the path `nodes` of a row's scratch, in order; drop the rest."""
        text = self.texts[row]
        self._set(row, text.committed + [text.scratch[node] for node in nodes.tolist()])

    def truncate(self, row: int, length: int) -> None:
        """Forget the committed entries of a row beyond `length`."""
        self._set(row, self.texts[row].committed[:length])

    def move(self, source: int, destination: int) -> None:
        """Put a row's committed entries in another row's place and empty the source."""
        if source != destination:
            self.texts[destination], self.texts[source] = self.texts[source], Row()
            self._set(destination, self.texts[destination].committed)
            self.lengths[source] = 0

    def _set(self, row: int, committed: list[int]) -> None:
        self.texts[row].committed, self.texts[row].scratch = committed, []
        self.lengths[row] = len(committed)
