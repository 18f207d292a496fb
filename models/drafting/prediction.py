"""Copies from a text that the output is expected to resemble (OpenAI's predicted outputs).

The output's end is looked for in the prediction, first where the last copy ended: an output that
follows the prediction, or leaves it and comes back further on, is followed.
"""

from collections.abc import Sequence as Several

FIRST, MOST = 4, 16  # tokens of a draft, at first and after drafts that were right
LEAST = 2  # tokens that must agree to find the place again


class Prediction:
    """Where an output is in its prediction. `next`, then `observe` if the draft was verified."""

    def __init__(self, tokens: Several[int]) -> None:
        self._tokens = list(tokens)
        self._places: dict[tuple[int, ...], list[int]] = {}  # ends of its pairs of tokens
        for end in range(LEAST, len(self._tokens) + 1):
            self._places.setdefault(tuple(self._tokens[end - LEAST : end]), []).append(end)
        self._at, self._length = 0, 0  # the next token to copy after so many of the output
        self._depth = FIRST

    def next(self, generated: Several[int]) -> list[int]:
        """The tokens that the prediction has after the output so far; none if it is lost."""
        place = self._place(generated)
        if place is None:
            return []
        self._at, self._length = place, len(generated)
        return self._tokens[place : place + self._depth]

    def _place(self, generated: Several[int]) -> int | None:
        new = len(generated) - self._length
        here = self._at + new
        if new >= 0 and self._tokens[self._at : here] == list(generated[self._length :]):
            return here  # the output follows it
        if len(generated) < LEAST:
            return None
        ends = self._places.get(tuple(generated[-LEAST:]))
        if ends is None:
            return None
        ahead = [end for end in ends if end >= self._at]
        return ahead[0] if ahead else ends[-1]

    def observe(self, accepted: int, *, of: int) -> None:
        """Longer drafts after one that was right to its end, short ones after one that was not."""
        self._depth = min(2 * self._depth, MOST) if accepted == of else FIRST
