"""Whose round it is: with a remote drafter, the two halves of the batch take turns."""

from models.drafting.drafter import Drafter
from models.loop.stopwatch import Stopwatch
from models.requests.sequence import Sequence


class Turns:
    """The drafter drafts for one half of the batch while the target verifies the other."""

    def __init__(self, drafter: Drafter | None) -> None:
        self._drafter = drafter
        self._turn = 0
        self._transferred_s = 0.0

    def next(self, running: list[Sequence]) -> tuple[int, list[Sequence]]:
        """The first row and the requests of this round."""
        count, drafter = len(running), self._drafter
        if drafter is None or not drafter.remote or count == 1:
            return 0, list(running)
        half = (count + 1) // 2
        self._turn = 1 - self._turn
        return (0, running[:half]) if self._turn else (half, running[half:])

    def book_transfer(self, part: str, marks: Stopwatch) -> None:
        """Book the time that a remote drafter spent on messages as transfer, not as `part`."""
        if self._drafter is not None and self._drafter.remote:
            total = self._drafter.transfer_s
            marks.shift(part, "transfer", total - self._transferred_s)
            self._transferred_s = total
