"""A student in a process of its own: images of classes by their seeds, in batches."""

import os
from typing import Any

import numpy as np
import torch

from cluster import logs
from cluster.checkpoints import present
from models.exactness import APPROXIMATE
from models.requests.request import Request, Result
from models.sampling.flow import NAME, FlowMap
from models.students.checkpoint import load_student
from models.students.sample import image_noise, sample
from models.students.start import frozen


class StudentActor:
    """A plain class: made remote late."""

    def __init__(self, folder: str, steps: int, threads: int | None) -> None:
        """`steps`: passes per image, of requests that do not say."""
        logs.set_up("student")
        if threads is not None:
            torch.set_num_threads(threads)
        self._student, self._steps = frozen(load_student(present(folder))), steps
        self._chart = FlowMap(self._student.codebook)

    def run(self, requests: list[Request]) -> tuple[int, list[Result]]:
        """The process, and the images of a batch of classes, which have the same `steps`.

        An image depends on its class, its seed and the steps alone.
        """
        config, steps = self._student.config, requests[0].steps or self._steps
        classes = torch.tensor([request.prompt[0] - config.vocab_size for request in requests])
        seeds = np.array([request.seed for request in requests], dtype=np.int64)
        noise = image_noise(seeds, config.num_tokens, config.code_width)
        tokens = sample(self._student, self._chart, classes, noise, steps).tolist()
        return os.getpid(), [
            Result(
                id=request.id,
                tokens=tuple(row),
                finish_reason="length",
                exactness=APPROXIMATE,
                accepted_length=config.num_tokens / steps,
            )
            for request, row in zip(requests, tokens, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Facts for summaries; `pid`: of the process."""
        config = self._student.config
        facts = {"architecture": "student", "method": config.method, "steps": self._steps}
        return {
            **facts,
            "target": config.target.path,
            "parameters": self._student.num_parameters,
            "noise": NAME,
            "vocabulary": config.vocab_size,
            "max_length": 1 + config.num_tokens,
            "pid": os.getpid(),
        }
