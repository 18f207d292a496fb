"""The processors of the requests that decode together, kept from round to round."""

from models.requests.sequence import Sequence
from models.sampling.maps import Maps
from models.sampling.processing import Processor
from models.targets.target import Target


class Processors:
    """One for each half of the batch, or for all of it."""

    def __init__(self, target: Target, maps: Maps) -> None:
        self._target, self._maps = target, maps
        self._known: dict[int, tuple[list[Sequence], Processor]] = {}  # by first row

    def of(self, first: int, running: list[Sequence]) -> Processor:
        """The processor of these requests; kept while they are the same in the same order."""
        known = self._known.get(first)
        if known is None or known[0] != running:
            target = self._target
            made = Processor(running, target.vocab_size, target.device, self._maps)
            # Drop other processors of these requests: they would miss tokens generated from now on.
            others = self._known.items()
            self._known = {row: o for row, o in others if not set(running) & set(o[0])}
            self._known[first] = known = (list(running), made)
        return known[1]
