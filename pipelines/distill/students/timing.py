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
from models.targets.load import pick_device
from pipelines.distill.students.samples import Way, ways_of

REPEATS = 5


def times_of(
    student_folder: Path,
    target: str,
    guidance: float,
    passes: Sequence[int],
    batches: Sequence[int],
    *,
    device: str = "cpu",
) -> dict[str, dict[str, float]]:
    """Milliseconds per image by way and batch size; the target's way is called `teacher`."""
    where = pick_device(device)
    student = frozen(load_student(student_folder, where))
    config, out = student.config, dict[str, dict[str, float]]()
    ways = ways_of(student, passes)
    for batch in batches:
        classes = (torch.arange(batch) % config.num_classes).to(where)
        noise = image_noise(np.arange(batch), config.num_tokens, config.code_width).to(where)
        for name, way in ways.items():
            taken = _median(partial(_made, way, classes, noise))
            out.setdefault(name, {})[str(batch)] = 1000 * taken / batch
        taken = _sequential(target, guidance, classes, config.num_tokens, device)
        out.setdefault("teacher", {})[str(batch)] = 1000 * taken / batch
    return out


def _made(way: Way, classes: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Images that are here: a GPU has made them."""
    return way(classes, noise).cpu()


def _sequential(
    target: str, guidance: float, classes: torch.Tensor, num_tokens: int, device: str
) -> float:
    """Seconds for a batch of images, token by token."""
    batch = len(classes)
    loop = build_loop(
        EngineConfig(
            target=target, drafter="none", batch_size=batch, guidance=guidance, device=device
        )
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
