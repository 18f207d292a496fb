"""Target actors with faults, for several tests. Importable by the actors' own processes."""

import os
import signal
import time

from actors.messages import Submission
from actors.target import TargetActor


class Slow(TargetActor):
    """Takes its time for each step, so that it can be killed in the middle."""

    def start(self, *arguments):
        told = super().start(*arguments)
        step = self._loop.step

        def slow():
            time.sleep(0.03)
            return step()

        self._loop.step = slow
        return told


class Poisoned(TargetActor):
    """Its process dies of one request."""

    def submit(self, submissions: list[Submission]) -> None:
        if any(s.request.id == "poison" for s in submissions):
            os.kill(os.getpid(), signal.SIGKILL)
        super().submit(submissions)


class Sick(TargetActor):
    """A pass raises while one request has generated five tokens."""

    def start(self, *arguments):
        told = super().start(*arguments)
        loop, score = self._loop, self._loop.target.score

        def sick(*inputs, **options):
            if any(s.id == "sick" and s.num_generated == 5 for s in loop._rows.running):
                raise ValueError("singular matrix")
            return score(*inputs, **options)

        loop.target.score = sick
        return told


class Broken(TargetActor):
    """Every pass raises what says that the checkpoint is unusable."""

    def start(self, *arguments):
        told = super().start(*arguments)

        def broken(*inputs, **options):
            from models.errors import UnsupportedCheckpoint

            raise UnsupportedCheckpoint("weights are not numbers")

        self._loop.target.score = broken
        return told
