"""How long an image takes: a student's passes against the target's own sequential decoding."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from models.engine import build_loop
from models.engine_config import EngineConfig
from models.requests.request import Request, Sampling
from models.students.checkpoint import load_student
from models.students.sample import image_noise
from models.students.start import frozen
from pipelines.distill.students.samples import ways_of

REPEATS = 5


def times_of(
    student_folder: Path,
    target: str,
    guidance: float,
    passes: Sequence[int],
    batches: Sequence[int],
) -> dict[str, dict[str, float]]:
    """Milliseconds per image by way and batch size; the target's way is called `teacher`."""
    student = frozen(load_student(student_folder))
    config, out = student.config, dict[str, dict[str, float]]()
    ways = ways_of(student, passes)
    for batch in batches:
        classes = torch.arange(batch) % config.num_classes
        noise = image_noise(np.arange(batch), config.num_tokens, config.code_width)
        for name, way in ways.items():
            taken = _median(partial(way, classes, noise))
            out.setdefault(name, {})[str(batch)] = 1000 * taken / batch
        taken = _sequential(target, guidance, classes, config.num_tokens)
        out.setdefault("teacher", {})[str(batch)] = 1000 * taken / batch
    return out


def _sequential(target: str, guidance: float, classes: torch.Tensor, num_tokens: int) -> float:
    """Seconds for a batch of images, token by token."""
    batch = len(classes)
    loop = build_loop(
        EngineConfig(target=target, drafter="none", batch_size=batch, guidance=guidance)
    )
    first = loop.target.vocab_size
    sampling = Sampling(max_tokens=num_tokens)
    requests = [
        Request(id=str(i), prompt=(first + c,), sampling=sampling, seed=i)
        for i, c in enumerate(classes.tolist())
    ]
    return _median(lambda: loop.run(requests), repeats=3)


def _median(work: Callable[[], object], repeats: int = REPEATS) -> float:
    work()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))
