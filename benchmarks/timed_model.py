"""A model with a stopwatch, to tell a draft's forward passes from what is done around them."""

import time
from typing import Any

from models.batch import Batch, Ints, Scores
from models.compute.x86.drafts import Chooser, Trees
from models.targets.target import Cache, Target


class TimedModel:
    """Everything of the model it holds, and the seconds its passes took."""

    def __init__(self, model: Target) -> None:
        self._model = model
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def score(self, cache: Cache, batch: Batch) -> Scores:
        """Timed."""
        began = time.perf_counter()
        scores = self._model.score(cache, batch)
        self.seconds += time.perf_counter() - began
        return scores

    def chooser(self, *arguments: Any) -> "TimedChooser":
        """Timed."""
        chooser = self._model.chooser(*arguments)  # type: ignore[attr-defined]
        return TimedChooser(self, chooser)


class TimedChooser:
    """What drafts in one call: its seconds are the model's."""

    def __init__(self, model: TimedModel, chooser: Chooser) -> None:
        self._model, self._chooser = model, chooser

    def chain(self, depth: int) -> Ints:
        """Timed."""
        began = time.perf_counter()
        chosen = self._chooser.chain(depth)
        self._model.seconds += time.perf_counter() - began
        return chosen

    def trees(self, width: int, depth: int, budget: int) -> Trees:
        """Timed."""
        began = time.perf_counter()
        grown = self._chooser.trees(width, depth, budget)
        self._model.seconds += time.perf_counter() - began
        return grown
