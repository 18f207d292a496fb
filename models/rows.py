"""Which request has which row of the cache.

Rows 0..R-1 belong to the requests that decode, the rows behind them to those whose prompts are
still being read; there are no gaps.
"""

from collections import deque

import numpy as np

from models.packing import Piece
from models.sequence import Sequence
from models.target import Cache


class Rows:
    """The requests that wait, read and run."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # row = index
        self.reading: list[Sequence] = []  # row = len(running) + index

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running) + len(self.reading)

    def admit(self) -> None:
        """Give free rows to those who wait."""
        while self.waiting and len(self.running) + len(self.reading) < self.cache.rows:
            self.reading.append(self.waiting.popleft())

    def next_pieces(self, limit: int) -> list[Piece]:
        """Up to `limit` prompt tokens to read next, of one prompt or of several short ones.

        All but a prompt's last token are read; that one is part of the first round.
        """
        pieces = []
        for row, sequence in enumerate(self.reading, len(self.running)):
            begin = int(self.cache.lengths[row])
            tokens = sequence.tokens[begin : min(len(sequence.tokens) - 1, begin + limit)]
            if tokens:
                pieces.append((row, tokens))
            limit -= len(tokens)
            if limit <= 0:
                break
        return pieces

    def commit(self, pieces: list[Piece]) -> None:
        """The pieces were read; those whose prompts are complete run from now on, in turn."""
        for row, tokens in pieces:
            self.cache.commit(row, np.arange(len(tokens)))
        while self.reading:
            read = int(self.cache.lengths[len(self.running)])
            if read < len(self.reading[0].tokens) - 1:
                break
            self.running.append(self.reading.pop(0))

    def release(self, sequence: Sequence) -> None:
        """Free the row; the rows stay dense by moving the last ones into the gap."""
        gap = self._gap(sequence)
        last = len(self.running) + len(self.reading)
        self.cache.truncate(gap, 0)
        if gap != last:
            self.cache.move(last, gap)

    def _gap(self, sequence: Sequence) -> int:
        """Take the request off its list; the row that has become free."""
        if sequence in self.reading:
            place = self.reading.index(sequence)
            self.reading[place] = self.reading[-1]
            self.reading.pop()
            return len(self.running) + place
        row, last = self.running.index(sequence), len(self.running) - 1
        self.running[row] = self.running[last]
        self.running.pop()
        if row != last:
            self.cache.truncate(row, 0)
            self.cache.move(last, row)
        if self.reading:  # their rows now begin at `last`: the last of them moves to the front
            self.reading.insert(0, self.reading.pop())
        return last
