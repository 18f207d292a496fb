"""A request whose output positions are decided in groups and in any order.

Letters: N output positions, n positions of one group.
"""

from collections.abc import Sequence as Several

import numpy as np

from models.batch import Ints
from models.requests.request import Request, TokenLogprob
from models.requests.sequence import Sequence

UNDECIDED = -1


class Canvas(Sequence):
    """A running request whose tokens are decided in groups. `place` is the only way to add tokens.

    `values` [N] holds the tokens by output position, UNDECIDED where there is none yet. `groups`
    holds the positions that each pass decided. `tokens` holds the prompt and the decided tokens in
    output order. `given` [N] holds the tokens that were generated elsewhere: the passes that
    decided them run again, to fill the cache, and place these tokens.
    """

    def __init__(self, request: Request, num_positions: int) -> None:
        super().__init__(request)
        self.values: Ints = np.full(num_positions, UNDECIDED, dtype=np.int64)
        self.given: Ints = np.full(num_positions, UNDECIDED, dtype=np.int64)
        self.groups: list[Ints] = []
        self._said: dict[int, TokenLogprob] = {}  # by position

    def resume(self) -> None:
        """Take over the tokens that the request has generated elsewhere, to place them again."""
        request = self.request
        positions = list(request.generated_positions or range(len(request.generated)))
        self.given[positions] = request.generated
        logprobs = request.generated_logprobs
        self._said.update(zip(positions, logprobs, strict=bool(logprobs)))

    def was_given(self, positions: Ints) -> bool:
        """Whether the tokens of a group were generated elsewhere."""
        return bool((self.given[positions] != UNDECIDED).all())

    def logprobs_at(self, positions: Several[int]) -> list[TokenLogprob]:
        """The log-probabilities of decided positions; empty if they were not requested."""
        return [self._said[position] for position in positions] if self._said else []

    @property
    def undecided(self) -> Ints:
        """The undecided positions, ascending."""
        return np.flatnonzero(self.values == UNDECIDED)

    def place(self, positions: Ints, tokens: Ints, said: Several[TokenLogprob] = ()) -> bool:
        """Decide `positions` [n]; True if none is left. `said`: their logprobs, if requested."""
        assert (self.values[positions] == UNDECIDED).all(), positions
        self.values[positions] = tokens
        self.groups.append(positions)
        self.tokens[self.num_prompt :] = self.values[self.values != UNDECIDED].tolist()
        if not self.was_given(positions):
            self._said.update(zip(positions.tolist(), said, strict=bool(said)))
        if self.num_generated == len(self.values):
            self.logprobs = [self._said[position] for position in sorted(self._said)]
            self.finish_reason = "length"
        return self.finish_reason is not None
