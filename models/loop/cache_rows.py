"""Assigns cache rows to requests.

Rows 0..R-1 belong to the requests that decode, the following rows to requests in prefill. There are
no gaps.
"""

from collections import deque

import numpy as np

from models.loop.packing import Piece
from models.requests.sequence import Sequence
from models.targets.target import Cache


class Rows:
    """The requests that wait, that are in prefill (`reading`), and that decode (`running`)."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # row = index
        self.reading: list[Sequence] = []  # row = len(running) + index

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running) + len(self.reading)

    def admit(self) -> None:
        """Give free rows to waiting requests."""
        while self.waiting and len(self.running) + len(self.reading) < self.cache.rows:
            self.reading.append(self.waiting.popleft())

    def next_pieces(self, limit: int) -> list[Piece]:
        """The next prompt tokens to prefill, at most `limit`, of one or several prompts.

        Prefill leaves out the last token of a prompt, which is the root of the first round.
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
        """Commit pieces that were prefilled; requests with complete prompts start to decode."""
        for row, tokens in pieces:
            self.cache.commit(row, np.arange(len(tokens)))
        while self.reading:
            read = int(self.cache.lengths[len(self.running)])
            if read < len(self.reading[0].tokens) - 1:
                break
            self.running.append(self.reading.pop(0))

    def release(self, sequence: Sequence) -> None:
        """Free the request's row, and move the last rows to fill the gap."""
        gap = self._gap(sequence)
        last = len(self.running) + len(self.reading)
        self.cache.truncate(gap, 0)
        if gap != last:
            self.cache.move(last, gap)

    def _gap(self, sequence: Sequence) -> int:
        """Remove the request from its list; returns the row that became free."""
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
        if self.reading:  # their rows now start at `last`, so the last request moves to the front
            self.reading.insert(0, self.reading.pop())
        return last
