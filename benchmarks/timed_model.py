"""A model with a stopwatch, to tell a draft's forward passes from what is done around them."""

import time
from typing import Any

from models.batch import Batch, Scores
from models.target import Cache, Target


class TimedModel:
    """Everything of the model it holds, and the seconds its passes took."""

    def __init__(self, model: Target) -> None:
        self._model = model
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def score(self, cache: Cache, batch: Batch, *, hidden: bool = False) -> Scores:
        """Timed."""
        began = time.perf_counter()
        scores = self._model.score(cache, batch, hidden=hidden)
        self.seconds += time.perf_counter() - began
        return scores

    def choose_chain(self, *arguments: Any) -> Any:
        """Timed."""
        began = time.perf_counter()
        chosen = self._model.choose_chain(*arguments)  # type: ignore[attr-defined]
        self.seconds += time.perf_counter() - began
        return chosen
