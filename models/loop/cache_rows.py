"""Assigns cache rows, and room in the cache, to requests.

Rows 0..R-1 belong to the requests that decode, the following rows to requests in prefill. There are
no gaps. Requests wait in the order of their priorities, and of their arrival. One is admitted when
there is room for its prompt and for a part of its completion. When the room runs out, the youngest
of the least urgent requests gives way: it waits again, and reads what it had as a prompt.
"""

from collections import deque
from itertools import count, islice

import numpy as np

from models.loop.pace import Pace
from models.loop.packing import Piece
from models.loop.readings import Readings, may_share
from models.requests.sequence import Sequence
from models.targets.target import Cache

LOOK = 64  # waiting requests that may be the next one
LEAST = 16  # shared tokens worth waiting for


class Rows:
    """The requests that wait, that are in prefill (`reading`), and that decode (`running`)."""

    def __init__(
        self, cache: Cache, *, scratch: int, whole: bool, readings: Readings | None = None
    ) -> None:
        """`scratch`: entries that a round needs beyond a request's tokens. `whole`: requests are
        admitted with room for their whole completions, and so never give way. `readings`: what the
        drafter must read of the target, also of tokens that are in the cache.
        """
        self.cache, self._scratch, self._whole = cache, scratch, whole
        self._readings = readings
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # row = index
        self.reading: list[Sequence] = []  # row = len(running) + index
        self._admissions = count()
        self._order: dict[str, int] = {}  # of admission, by id; kept while a request waits again
        self._full = False  # there was no room for a request, and none has ended since

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running) + len(self.reading)

    @property
    def shares(self) -> bool:
        """Whether rows may begin with what the cache holds."""
        return may_share(self._readings) and not self._whole and self.cache.shares

    def wait(self, sequence: Sequence) -> None:
        """Queue a request behind those of its priority."""
        priority = sequence.request.priority
        place = len(self.waiting)
        while place and self.waiting[place - 1].request.priority > priority:
            place -= 1
        self.waiting.insert(place, sequence)

    def _wait_again(self, sequence: Sequence) -> None:
        """Queue a request that gave way, before those of its priority."""
        priority = sequence.request.priority
        before = (i for i, s in enumerate(self.waiting) if s.request.priority >= priority)
        self.waiting.insert(next(before, len(self.waiting)), sequence)

    def admit(self) -> int:
        """Give free rows to waiting requests, as long as there is room in the cache.

        Returns the number of their tokens that are already in the cache.
        """
        hits = 0
        while (row := len(self.running) + len(self.reading)) < self.cache.rows:
            sequence = None if row and self._full else self._next_in_line()
            if sequence is None:
                break
            hit = self._begin(row, sequence)
            if not self.cache.reserve(row, self._expected(sequence)):
                assert row, "a request that can never run was queued"
                self.cache.truncate(row, 0)
                if self._readings is not None:
                    self._readings.undo(sequence)
                self._full = True
                break
            if sequence.id not in self._order:
                self._order[sequence.id] = next(self._admissions)
                sequence.cached = min(hit, sequence.num_prompt)  # what is replayed is none of it
            self.waiting.remove(sequence)
            self.reading.append(sequence)
            hits += hit
        return hits

    def _begin(self, row: int, sequence: Sequence) -> int:
        """Take over what is in the cache, and the drafter need not read: the number of tokens."""
        if not self.shares or sequence.lacks_prompt_logprobs:
            return 0
        most = None if self._readings is None else self._readings.begin(sequence)
        return self.cache.begin(row, sequence.tokens, sequence.request.cache_salt, most)

    def _next_in_line(self) -> Sequence | None:
        """The first waiting request, unless it is about to share what another one reads now."""
        some = islice(self.waiting, LOOK)
        return next((sequence for sequence in some if not self._will_share(sequence)), None)

    def _will_share(self, sequence: Sequence) -> bool:
        """Whether a request in prefill reads the next token of the same prompt."""
        if not self.shares:
            return False
        for row, other in enumerate(self.reading, len(self.running)):
            shared = max(int(self.cache.lengths[row]) + 1, LEAST)
            shortest = min(len(sequence.tokens), len(other.tokens)) - 1  # the last one is a root
            if other.request.cache_salt != sequence.request.cache_salt:
                continue
            if shared > shortest or sequence.tokens[shared - 1] != other.tokens[shared - 1]:
                continue  # mostly decided by one token, of prompts that may be long
            if sequence.tokens[:shared] == other.tokens[:shared]:
                return True
        return False

    def _expected(self, sequence: Sequence) -> int:
        """The entries that a request is admitted with: half of its completion often suffices."""
        left = sequence.num_left if self._whole else -(-sequence.num_left // 2)
        return len(sequence.tokens) + left + self._scratch

    def make_room(self) -> list[Sequence]:
        """Make room for a round of the running requests; returns the requests that gave way."""
        gave_way: list[Sequence] = []
        while self._short_of_room():
            last = max(self.running + self.reading, key=self._rank)
            self._free(last)
            self._wait_again(last)
            gave_way.append(last)
            self._full = True
        return gave_way

    def restart(self, readings: Readings | None) -> list[Sequence]:
        """All requests wait again, in the order of their admission; `readings` as at the start."""
        self._readings = readings
        gave_way = sorted(self.running + self.reading, key=self._rank)
        for sequence in gave_way:
            self._free(sequence)
        for sequence in reversed(gave_way):
            self._wait_again(sequence)
        self._full = False
        return gave_way

    def _rank(self, sequence: Sequence) -> tuple[int, int]:
        """The highest gives way: of the least urgent, the one that was admitted last."""
        return sequence.request.priority, self._order[sequence.id]

    def _short_of_room(self) -> bool:
        """Reserve what a round may need; True if a running request cannot have it."""
        if self._whole:
            return False
        needs = (len(sequence.tokens) + self._scratch for sequence in self.running)
        return not all(self.cache.reserve(row, need) for row, need in enumerate(needs))

    def next_pieces(self, pace: Pace) -> list[Piece]:
        """The next prompt tokens to prefill, of one or several prompts; shorter ones come first.

        Prefill leaves out the last token of a prompt, which is the root of the first round.
        """
        pieces, left = [], pace.chunk
        slow = pace.limit(decoding=bool(self.running))  # tokens of long prompts
        for row, sequence in sorted(
            enumerate(self.reading, len(self.running)), key=lambda each: len(each[1].tokens)
        ):
            is_long = pace.is_long(len(sequence.tokens))
            begin = int(self.cache.lengths[row])
            end = begin + (min(left, slow) if is_long else left)
            tokens = sequence.tokens[begin : min(len(sequence.tokens) - 1, end)]
            if tokens:
                pieces.append((row, tokens))
            left -= len(tokens)
            slow -= len(tokens) if is_long else 0
            if left <= 0:
                break
        return pieces

    def commit(self, pieces: list[Piece]) -> None:
        """Commit pieces that were prefilled; requests with complete prompts start to decode."""
        for row, tokens in pieces:
            self.cache.commit(row, np.arange(len(tokens)))
        for sequence in list(self.reading):
            first, place = len(self.running), self.reading.index(sequence)
            if int(self.cache.lengths[first + place]) < len(sequence.tokens) - 1:
                continue
            if place:
                self.cache.swap(first, first + place)
                self.reading[place] = self.reading[0]
            self.running.append(sequence)
            del self.reading[0]

    def withdraw(self, sequence: Sequence) -> None:
        """Remove a request that waits."""
        self.waiting.remove(sequence)
        self._order.pop(sequence.id, None)

    def release(self, sequence: Sequence) -> None:
        """Free the room of a request that has ended."""
        self._free(sequence)
        del self._order[sequence.id]
        self._full = False

    def _free(self, sequence: Sequence) -> None:
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
