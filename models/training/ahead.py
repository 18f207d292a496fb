"""What a worker takes next in a training: known ahead, as the order of the samples is."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from models.training.kind import Samples
from models.training.step import TrainingPlan, parts_of, samples_of

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """The parts of batches that worker `rank` of `world` takes, `accumulate` in each step.

    `until`: the steps after which it takes no more.
    """

    plan: TrainingPlan
    until: int
    num_records: int
    rank: int = 0
    world: int = 1
    accumulate: int = 1

    def parts(self, step: int) -> list[Samples]:
        """Those of one step, as `TrainingStep` takes them."""
        whole = samples_of(self.plan, step, self.num_records)
        return parts_of(whole, self.rank, self.world, self.accumulate)

    def following(self, samples: Samples) -> Iterator[Samples]:
        """The parts from this one on."""
        first = int(samples.numbers[0])
        for step in range(first // self.plan.batch, self.until):
            yield from (part for part in self.parts(step) if part.numbers[0] >= first)


class Window(Generic[Answer]):
    """Asks for the next parts before they are taken: at most `size` answers are on their way."""

    def __init__(
        self,
        ahead: Ahead,
        ask: Callable[[Samples], Callable[[], Answer]],
        *,
        size: int,
    ) -> None:
        """`ask` begins to make the answer to a part; what it returns waits for it."""
        self._ahead, self._ask, self._size = ahead, ask, size
        self._coming: Iterator[Samples] = iter(())
        self._asked: deque[tuple[int, Callable[[], Answer]]] = deque()

    def take(self, samples: Samples) -> Answer:
        """The answer to a part. Parts come in their order, from any one on.

        A part that is not the next one, as after a state was loaded, begins anew.
        """
        first = int(samples.numbers[0])
        if not self._asked or self._asked[0][0] != first:
            self._asked.clear()
            self._coming = self._ahead.following(samples)
            self._fill()
        _, wait = self._asked.popleft()
        answer = wait()
        self._fill()
        return answer

    def _fill(self) -> None:
        while len(self._asked) < self._size:
            part = next(self._coming, None)
            if part is None:
                return
            self._asked.append((int(part.numbers[0]), self._ask(part)))
