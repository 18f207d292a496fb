"""A student in a process of its own: images of classes by their seeds, in batches."""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster import logs
from cluster.storage.checkpoints import present
from models.compute.x86.kernels import compiled
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.exactness import APPROXIMATE
from models.loop.facts import computed
from models.requests.request import Request, Result
from models.requests.spans import Span, Spans
from models.sampling.flow import FlowMap
from models.students.checkpoint import load_student
from models.students.mixed import Mixed
from models.students.networks.frozen import FrozenStudent
from models.students.sample import image_noise, sample
from models.students.start import frozen
from models.training.engines.worker import CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The target that decodes the tokens from `first` to the one before `last` anew."""

    teacher: str
    first: int
    last: int
    batch_size: int


class StudentActor:
    """A plain class: made remote late."""

    def __init__(
        self,
        folder: str,
        steps: int,
        threads: int | None,
        name: str = "student",
        mix: Mix | None = None,
    ) -> None:
        """`steps`: passes per image, of requests that do not say. `name`: in logs and traces."""
        logs.set_up(name)
        self._name = name
        if threads is not None:
            torch.set_num_threads(threads)
        self._student, self._steps = frozen(load_student(present(folder))), steps
        self._chart, self._mixed = FlowMap(self._student.codebook), None
        if mix is not None:
            loop = build_loop(
                EngineConfig(
                    target=present(mix.teacher),
                    batch_size=mix.batch_size,
                    guidance=self._student.config.guidance,
                    device="cpu",
                    threads=threads,
                )
            )
            self._mixed = Mixed(self._student, self._chart, loop, mix.first, mix.last)

    def run(self, requests: list[Request]) -> tuple[int, list[Result]]:
        """The process, and the images of a batch of classes, which have the same `steps`.

        An image depends on its class, its seed and the steps alone.
        """
        config, steps = self._student.config, requests[0].steps or self._steps
        classes = torch.tensor([request.prompt[0] - config.vocab_size for request in requests])
        seeds = np.array([request.seed for request in requests], dtype=np.int64)
        moments = [time.perf_counter()]
        noise = image_noise(seeds, config.num_tokens, config.code_width)
        moments.append(time.perf_counter())
        if self._mixed is None:
            tokens, passes = sample(self._student, self._chart, classes, noise, steps), steps
        else:
            tokens = self._mixed.images(classes, seeds.tolist(), noise, steps)
            passes = self._mixed.passes(steps)
        spans = self._spans([*moments, time.perf_counter()], rows=len(requests), passes=passes)
        return os.getpid(), [
            Result(
                id=request.id,
                tokens=tuple(row),
                finish_reason="length",
                exactness=APPROXIMATE,
                accepted_length=config.num_tokens / passes,
                spans=spans if request.trace else (),
            )
            for request, row in zip(requests, tokens.tolist(), strict=True)
        ]

    def _spans(self, moments: list[float], *, rows: int, passes: int) -> tuple[Span, ...]:
        """Of a batch, by the moments at which it began, its noise was drawn and it was made."""
        spans, (began, drawn, made) = Spans(self._name), moments
        spans.add("batch", began, made, {"rows": rows, "passes": passes})
        spans.add("noise", began, drawn)
        spans.add("passes", drawn, made)
        return tuple(spans.found)

    def describe(self) -> dict[str, Any]:
        """Facts for summaries; `pid`: of the process."""
        config = self._student.config
        facts = {"architecture": "student", "method": config.method, "steps": self._steps}
        return {
            **facts,
            "target": config.target.path,
            "parameters": self._student.num_parameters,
            "noise": config.noise,
            **computed(CPU, steady=isinstance(self._student, FrozenStudent) and compiled()),
            "exactness": APPROXIMATE,
            "vocabulary": config.vocab_size,
            "max_length": 1 + config.num_tokens,
            "threads": torch.get_num_threads(),
            "pid": os.getpid(),
        }
