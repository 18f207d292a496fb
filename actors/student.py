"""Students of a generate job: images by their classes and seeds, in batches, on Ray actors."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import numpy as np
import ray
import torch
from ray import ObjectRef

from cluster.checkpoints import present
from cluster.placement import selector
from models.exactness import APPROXIMATE
from models.loop.figures import Figures
from models.requests.request import Request, Result
from models.sampling.flow import NAME, FlowMap
from models.students.checkpoint import load_student
from models.students.sample import image_noise, sample
from models.students.start import frozen

QUEUE_FACTOR = 2  # batches on an actor at most: the next waits where the first runs
RETRIES = 3  # of a batch whose actor dies


class StudentActor:
    """A student in a process of its own. A plain class: made remote late."""

    def __init__(self, folder: str, steps: int, threads: int | None) -> None:
        """`steps`: passes per image."""
        if threads is not None:
            torch.set_num_threads(threads)
        self._student, self._steps = frozen(load_student(present(folder))), steps
        self._chart = FlowMap(self._student.codebook)

    def run(self, requests: list[Request]) -> list[Result]:
        """The images of a batch of classes. An image depends on its class and seed alone."""
        config = self._student.config
        classes = torch.tensor([request.prompt[0] - config.vocab_size for request in requests])
        seeds = np.array([request.seed for request in requests], dtype=np.int64)
        noise = image_noise(seeds, config.num_tokens, config.code_width)
        tokens = sample(self._student, self._chart, classes, noise, self._steps).tolist()
        return [
            Result(
                id=request.id,
                tokens=tuple(row),
                finish_reason="length",
                exactness=APPROXIMATE,
                accepted_length=config.num_tokens / self._steps,
            )
            for request, row in zip(requests, tokens, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Facts for summaries."""
        config = self._student.config
        facts = {"architecture": "student", "method": config.method, "steps": self._steps}
        return {
            **facts,
            "target": config.target.path,
            "parameters": self._student.num_parameters,
            "noise": NAME,
        }


class StudentPool:
    """Actors in the place of a target pool: requests in, results out.

    Ray starts an actor that dies again and repeats its batches, which gives the same images.
    """

    def __init__(
        self, folder: str, *, steps: int, actors: int, batch_size: int, threads: int | None
    ) -> None:
        made: Any = ray.remote(StudentActor).options(
            max_restarts=-1, max_task_retries=RETRIES, label_selector=selector("target") or None
        )
        self._actors = [made.remote(folder, steps, threads) for _ in range(actors)]
        self._steps, self._batch, self._turn = steps, batch_size, 0
        self._calls: dict[ObjectRef[Any], int] = {}  # to the number of requests
        self._figures = Figures()

    def __enter__(self) -> Self:
        ray.get([actor.describe.remote() for actor in self._actors])  # loaded, or its error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def free_slots(self) -> int:
        """How many more requests may be submitted."""
        room = QUEUE_FACTOR * self._batch * len(self._actors)
        return max(0, room - sum(self._calls.values()))

    def submit(self, requests: list[Request]) -> None:
        """Queue them, in batches, on the actors in turn."""
        for first in range(0, len(requests), self._batch):
            some = requests[first : first + self._batch]
            actor = self._actors[self._turn % len(self._actors)]
            self._calls[actor.run.remote(some)] = len(some)
            self._turn += 1

    def take(self, timeout_s: float) -> list[Result]:
        """Results that have come in, after `timeout_s` at most."""
        done, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        results: list[Result] = []
        for call in done:
            del self._calls[call]
            results += ray.get(call)
        self._count(results)
        return results

    def _count(self, results: Iterable[Result]) -> None:
        for result in results:
            self._figures += Figures(
                rounds=self._steps, round_rows=self._steps, tokens=len(result.tokens)
            )

    def figures(self) -> Figures:
        """Counts of all actors; an image is a request of `steps` rounds."""
        return self._figures

    def describe(self) -> dict[str, Any]:
        """Facts about the student."""
        facts: dict[str, Any] = ray.get(self._actors[0].describe.remote())
        return facts
