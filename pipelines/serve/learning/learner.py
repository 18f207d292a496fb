"""Records what a server answers, lets rounds of training run, and changes the drafter.

Runs beside the server, where it is asked to look every second; knows the server by three calls.
"""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from actors.messages import Learning, Row
from pipelines.serve.learning.decision import Decision
from pipelines.serve.learning.lesson import Course, Lesson
from pipelines.serve.learning.rows import RowStore
from pipelines.serve.learning.state import ROUNDS, ROWS, LearnState, lock, open_state, round_folder
from pipelines.serve.learning.trainer import Trainer
from pipelines.serve.learning.verdict import DRAFTER

log = logging.getLogger(__name__)


class Served(Protocol):
    """What a learner needs of a server. Methods may raise RuntimeError."""

    def take_rows(self) -> Sequence[Row]:
        """The answers since the last call."""

    def use_drafter(self, folder: str) -> None:
        """Draft with this one from now on."""

    def show(self, learning: Learning) -> None:
        """As metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pupil:
    """`drafter`: the one that the server was started with. `depth`: of its chains."""

    target: str
    target_digest: str
    drafter: str
    drafter_digest: str
    depth: int


class Learner:
    """Owns a folder: rows/, rounds/, state.json."""

    def __init__(
        self,
        folder: Path,
        pupil: Pupil,
        course: Course,
        *,
        start: Callable[[Path], Trainer] = Trainer,
    ) -> None:
        """Raises InvalidOption: the folder is of another target or drafter."""
        self.folder, self._pupil, self._course = folder.absolute(), pupil, course
        self._lock = lock(self.folder)
        try:
            self.state = open_state(
                self.folder, target=pupil.target_digest, drafter=pupil.drafter_digest
            )
        except BaseException:
            os.close(self._lock)
            raise
        self.rows = RowStore(self.folder / ROWS, least_total=self.state.rows)
        self._start = start
        self.trainer: Trainer | None = None
        self._shown: Learning | None = None

    @property
    def drafter(self) -> str:
        """The folder of the one to serve with."""
        return self._drafter_of(self.state.served)

    def look(self, served: Served) -> None:
        """Take what was answered; begin a round, or end one that has come to a verdict."""
        self.record(served)
        if self.trainer is None:
            self._begin()
        else:
            self._follow(self.trainer, served)
        learning = self._learning()
        if learning != self._shown:
            served.show(learning)
            self._shown = learning

    def record(self, served: Served) -> None:
        """Take what was answered."""
        self.rows.add(served.take_rows())

    def close(self) -> None:
        """End the training, which the next server goes on with, and write all rows."""
        try:
            if self.trainer is not None:
                self.trainer.stop()
            self.rows.flush()
        finally:
            os.close(self._lock)

    def _begin(self) -> None:
        """A round, if there are enough new rows or one was interrupted."""
        state = self.state
        if not state.under_way:
            if self.rows.count - state.rows < self._course.every:
                return
            self.rows.flush()
            number = state.number + 1
            shutil.rmtree(round_folder(self.folder, number), ignore_errors=True)
            self._lesson(number).write(round_folder(self.folder, number))
            self._keep(replace(state, number=number, under_way=True, rows=self.rows.count))
        self.trainer = self._start(round_folder(self.folder, self.state.number))

    def _lesson(self, number: int) -> Lesson:
        return Lesson(
            target=self._pupil.target,
            digest=self._pupil.target_digest,
            present=self.drafter,
            start=self._drafter_of(self.state.trainee),
            rows=str(self.rows.folder),
            depth=self._pupil.depth,
            number=number,
            course=self._course,
        )

    def _follow(self, trainer: Trainer, served: Served) -> None:
        """The round that is under way."""
        number = self.state.number
        try:
            decision = trainer.verdict()
            if decision is None:
                return
            if decision.is_better:
                served.use_drafter(self._drafter_of(number))
        except RuntimeError as error:  # of the training, or of the server, which keeps its drafter
            log.warning("learning: round %d failed: %s", number, error)
            self._end(replace(self.state, failed=self.state.failed + 1))
            return
        log.info("learning: round %d: %s", number, _told(decision))
        self._end(_after(self.state, decision))

    def _end(self, state: LearnState) -> None:
        self.trainer = None
        self._keep(replace(state, under_way=False))
        self._clean()

    def _keep(self, state: LearnState) -> None:
        state.write(self.folder)
        self.state = state

    def _clean(self) -> None:
        """Delete what no server will need."""
        kept = {round_folder(self.folder, n) for n in (self.state.served, self.state.trainee)}
        for place in (self.folder / ROUNDS).iterdir():
            for part in place.iterdir():
                if place not in kept or part.name != DRAFTER:  # texts, too
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
            if place not in kept:
                place.rmdir()

    def _drafter_of(self, number: int) -> str:
        if number == 0:
            return self._pupil.drafter
        return str(round_folder(self.folder, number) / DRAFTER)

    def _learning(self) -> Learning:
        state = self.state
        return Learning(
            rows=self.rows.count,
            better=state.better,
            no_better=state.no_better,
            failed=state.failed,
            present_length=state.present,
            new_length=state.new,
        )


def _after(state: LearnState, decision: Decision) -> LearnState:
    """What follows from a round's verdict; one that gained a little is gone on from."""
    number = state.number
    measured = replace(state, present=decision.present, new=decision.new)
    if decision.is_better:
        return replace(measured, better=state.better + 1, served=number, trainee=number)
    trainee = number if decision.new > decision.present else state.served
    return replace(measured, no_better=state.no_better + 1, trainee=trainee)


def _told(decision: Decision) -> str:
    lengths = f"{decision.present:.3f} tokens per round before, {decision.new:.3f} now"
    by = f"by the laws on {decision.held_out} held-out requests, ±{decision.error:.3f}"
    what = "the drafter has changed" if decision.is_better else "the drafter stays"
    return f"{what}: {lengths} ({by})"
