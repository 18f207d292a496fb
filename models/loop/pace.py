"""How many prompt tokens to read between two rounds, so that other requests keep decoding.

A short prompt is read in one or a few whole chunks. A long one beside requests that decode is read
in pieces that take about as long as a round, so that the time between their tokens does not double.
"""

CHUNKS = 4  # a prompt of more chunks than this is a long one
WEIGHT = 0.25  # of the newest measurement


class Pace:
    """Measures what a round and a prompt token take, and sizes pieces of long prompts.

    `chunk`: the most prompt tokens between two rounds.
    """

    def __init__(self, chunk: int) -> None:
        self.chunk = chunk
        self._round_s: float | None = None
        self._token_s: float | None = None

    def is_long(self, tokens: int) -> bool:
        """Whether a prompt of so many tokens is a long one."""
        return tokens > CHUNKS * self.chunk

    def limit(self, *, decoding: bool) -> int:
        """The most tokens of long prompts that are read before the next round."""
        if not decoding:
            return self.chunk
        if self._round_s is None or self._token_s is None:
            return 1
        return max(1, min(self.chunk, int(self._round_s / self._token_s)))

    def observe_piece(self, tokens: int, seconds: float) -> None:
        """A piece was read, or none."""
        if tokens:
            self._token_s = _mean(self._token_s, seconds / tokens)

    def observe_round(self, seconds: float) -> None:
        """A round was decoded."""
        self._round_s = _mean(self._round_s, seconds)


def _mean(before: float | None, value: float) -> float:
    return value if before is None else before + WEIGHT * (value - before)
