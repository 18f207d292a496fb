"""Prompt lookup: copies the tokens that followed the longest earlier match of the text's end.

A suffix automaton over prompt and output finds the match, in constant time per token for any match
length. If the copy reaches the end of the text, it continues with the copied tokens, as in LZ77
(Ziv and Lempel 1977), so text with a short period gives drafts of any length.
Sources: the input copy of Aggressive Decoding (Sun et al. 2021, arXiv 2106.04970), prompt lookup
decoding (Saxena 2023), and the automaton of Blumer et al. 1985.
"""

from collections.abc import Sequence as Several

import numpy as np

from models.drafting.draft import EMPTY, Draft, Shape, chain_draft
from models.drafting.drafter import DraftContext, useful_depth
from models.requests.sequence import Sequence
from models.verify.round import Commit, Round


class SuffixAutomaton:
    """All substrings of a growing token sequence, each with the end of its latest occurrence.

    State 0 is the empty string. `match` is (length, end): the length of the longest suffix that
    also occurs earlier, and the index after this earlier occurrence.
    """

    def __init__(self) -> None:
        self._next: list[dict[int, int]] = [{}]
        self._link, self._length, self._end = [-1], [0], [0]
        self._last = 0
        self.match = (0, 0)
        self.size = 0

    def extend(self, token: int) -> None:
        """Append one token."""
        self.size += 1
        new = self._add({}, self._length[self._last] + 1, self.size)
        state = self._last
        while state >= 0 and token not in self._next[state]:
            self._next[state][token] = new
            state = self._link[state]
        self._link[new] = 0 if state < 0 else self._split(state, token)
        self._last = new
        self._note_match(self._link[new])

    def _add(self, transitions: dict[int, int], length: int, end: int) -> int:
        self._next.append(transitions)
        self._link.append(-1)
        self._length.append(length)
        self._end.append(end)
        return len(self._next) - 1

    def _split(self, state: int, token: int) -> int:
        """The state of the longest suffix seen before; cloned from a longer one if necessary."""
        target = self._next[state][token]
        if self._length[target] == self._length[state] + 1:
            return target
        clone = self._add(dict(self._next[target]), self._length[state] + 1, self._end[target])
        self._link[clone], self._link[target] = self._link[target], clone
        while state >= 0 and self._next[state].get(token) == target:
            self._next[state][token] = clone
            state = self._link[state]
        return clone

    def _note_match(self, state: int) -> None:
        """Store where the longest repeated suffix ended before; its latest end is now here."""
        self.match = (self._length[state], self._end[state])
        if state:
            self._end[state] = self.size


class LookupDrafter:
    """Drafts chains copied from the request's prompt and output. Needs no model."""

    name = "lookup"
    max_width = 1
    remote = False
    transfer_s = 0.0
    bytes_per_entry = 0
    wants = None

    def __init__(self) -> None:
        self.passes = 0
        self._automata: dict[str, SuffixAutomaton] = {}

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """The continuation of the longest match: at most 2n - 1 tokens for a match of n."""
        return [self._propose(sequence, shape) for sequence in sequences]

    def _propose(self, sequence: Sequence, shape: Shape) -> Draft:
        automaton = self._automata.setdefault(sequence.id, SuffixAutomaton())
        for token in sequence.tokens[automaton.size :]:
            automaton.extend(token)
        length, end = automaton.match
        if length == 0:
            return EMPTY
        count = min(useful_depth(sequence, shape), 2 * length - 1)
        known = np.array(sequence.tokens[end : end + count], dtype=np.int64)
        return chain_draft(np.resize(known, count))

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """Does nothing: `propose` reads the new tokens."""

    def forget(self, request_id: str) -> None:
        """Drop the request's automaton."""
        self._automata.pop(request_id, None)


def build(*arguments: object, **options: object) -> LookupDrafter:
    """See `Build` in models/engine.py; it needs nothing."""
    return LookupDrafter()
