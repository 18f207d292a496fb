"""A target whose passes take as long as they are told to, without using a core.

So two cores can run as many target actors as a cluster would.
"""

import os
import time
from typing import Any

from actors.messages import DraftTeam
from actors.target import TargetActor
from models.batch import Batch, Scores
from models.engine_config import EngineConfig
from models.targets.target import Cache

PASS_MS = "PACELINE_BENCHMARK_PASS_MS"


class SleepingTarget(TargetActor):
    """A target actor; each of its forward passes takes `PASS_MS` longer."""

    def start(self, config: EngineConfig, team: DraftTeam | None = None) -> dict[str, object]:
        """As of a target actor."""
        described = super().start(config, team)
        target: Any = self._ready().target
        score, seconds = target.score, float(os.environ[PASS_MS]) / 1e3

        def slower(cache: Cache, batch: Batch) -> Scores:
            time.sleep(seconds)
            scores: Scores = score(cache, batch)
            return scores

        target.score = slower
        return described
