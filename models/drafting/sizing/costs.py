"""What a round of each shape costs, compared with other shapes: measured, never predicted."""

from collections import deque
from collections.abc import Collection

from models.drafting.draft import NOTHING, Shape

SEEN = 6  # rounds that a shape's cost is the mean of
PACE = 2 * SEEN  # rounds of the chosen shape that the pace is the mean of


class Costs:
    """Of rounds with about the same number of requests.

    Rounds of the chosen shape measure the machine's pace, seconds per unit of cost, which changes;
    rounds of others, timed between them, measure what they cost at that pace, which hardly does.
    """

    def __init__(self) -> None:
        self.chosen = NOTHING
        self.known: dict[Shape, float] = {NOTHING: 1.0}
        self._seen = {NOTHING: deque([1.0] * SEEN, SEEN)}
        self._paces: deque[float] = deque(maxlen=PACE)

    def observe(self, shape: Shape, seconds: float) -> None:
        """Learn from a round. A newly chosen shape is timed like others until its cost is sure."""
        seen = self._seen.setdefault(shape, deque(maxlen=SEEN))
        if shape == self.chosen and len(seen) == SEEN:
            self._paces.append(seconds / self.known[shape])
        else:
            seen.append(seconds / _trimmed(self._paces))
            self.known[shape] = _trimmed(seen)

    def least(self, shape: Shape) -> float:
        """The cost of a shape; if unknown, that of the dearest known one that is nowhere larger."""
        smaller = [s for s in self.known if s.depth <= shape.depth and s.budget <= shape.budget]
        return self.known.get(shape) or max(self.known[s] for s in smaller)


def _trimmed(values: Collection[float]) -> float:
    """Their mean without the largest: a slow moment is not the shape's fault."""
    dropped = max(values) if len(values) > 1 else 0.0
    return (sum(values) - dropped) / max(len(values) - 1, 1)
