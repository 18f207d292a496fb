"""A learner beside a running server: made from its configuration, and fed by its manager."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from actors.messages import Learning, Row
from models.drafting.folder_kind import num_heads
from models.errors import PacelineError
from models.targets.limits import read_limits
from pipelines.engine_options import located
from pipelines.generate.fingerprint import checkpoint_digest
from pipelines.serve.config import ServeConfig
from pipelines.serve.learning.learner import Learner, Pupil
from pipelines.serve.learning.lesson import Course
from pipelines.serve.models import Configs

RECORD_S = 20.0  # that a manager may take to hand over rows, or to show figures
DRAFTER_S = 600.0  # that its actors may take to load a drafter
DEPTH = 4  # of the chains that drafters are judged by, where the server chooses their length

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Managed:
    """A served model, by the handle of its manager."""

    manager: Any

    def take_rows(self) -> Sequence[Row]:
        """The answers since the last call."""
        rows: Sequence[Row] = self._ask(self.manager.take_rows.remote, within_s=RECORD_S)
        return rows

    def use_drafter(self, folder: str) -> None:
        """Draft with this one from now on."""
        self._ask(self.manager.use_learned.remote, folder, within_s=DRAFTER_S)

    def show(self, learning: Learning) -> None:
        """As metrics."""
        self._ask(self.manager.learned.remote, learning, within_s=RECORD_S)

    def stop(self) -> None:
        """Record nothing any more."""
        self._ask(self.manager.stop_recording.remote, within_s=RECORD_S)

    def _ask(self, method: Callable[..., Any], *arguments: Any, within_s: float) -> Any:
        """What a call returns. Raises RuntimeError if it fails or takes longer."""
        try:
            return ray.get(method(*arguments), timeout=within_s)
        except (RayError, PacelineError) as error:
            cause = getattr(error, "cause", None) or error
            lines = str(cause).strip().splitlines() or [type(cause).__name__]
            raise RuntimeError(lines[0]) from error


class Lessons:
    """A learner for as long as it works: the server goes on without it.

    `number`: of the model that it teaches.
    """

    def __init__(self, learner: Learner, number: int) -> None:
        self.number = number
        self.learner: Learner | None = learner

    def look(self, manager: Any) -> None:
        """See Learner; `manager`: the handle of the model's."""
        if self.learner is None:
            return
        try:
            self.learner.look(Managed(manager))
        except (RuntimeError, OSError, PacelineError) as error:
            log.error("learning: stopped, the server goes on: %s", error)
            self.close()
            with suppress(RuntimeError):  # the server has failed, too
                Managed(manager).stop()

    def record(self, manager: Any) -> None:
        """Take the last answers, without a round."""
        if self.learner is None:
            return
        try:
            self.learner.record(Managed(manager))
        except (RuntimeError, OSError, PacelineError) as error:
            log.warning("learning: the last rows were not taken: %s", error)

    def close(self) -> None:
        """End the training; nothing that was learned is lost."""
        learner, self.learner = self.learner, None
        if learner is not None:
            try:
                learner.close()
            except (OSError, PacelineError) as error:
                log.error("learning: the last rows were not written: %s", error)


@contextmanager
def lessons(configs: Configs, course: Course) -> Iterator[tuple[Configs, Lessons | None]]:
    """The configurations with the drafter that was learned so far, and what learns on."""
    number = next((i for i, config in enumerate(configs) if config.learn is not None), None)
    if number is None:
        yield configs, None
        return
    learner = learner_of(configs[number], course)
    made = Lessons(learner, number)
    try:
        now = replace(configs[number], drafter=learner.drafter)
        yield (*configs[:number], now, *configs[number + 1 :]), made
    finally:
        made.close()


def learner_of(config: ServeConfig, course: Course) -> Learner:
    """Opens the folder. Raises InvalidOption: it is another server's."""
    assert config.learn is not None
    depth = num_heads(config.drafter)
    if depth is None:
        depth = config.draft_tokens if isinstance(config.draft_tokens, int) else DEPTH
    contexts = [read_limits(each).context_length for each in (config.target, config.drafter)]
    return Learner(
        Path(config.learn),
        Pupil(
            target=located(config.target),
            target_digest=checkpoint_digest(config.target),
            drafter=located(config.drafter),
            drafter_digest=checkpoint_digest(config.drafter, role="draft"),
            depth=depth,
        ),
        replace(course, length=min([course.length, *filter(None, contexts)])),
    )
