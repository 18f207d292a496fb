"""What a run will take, measured on a few images before it begins: seconds and bytes by stage."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cluster.storage.checkpoints import present
from models.sampling.flow import FlowMap
from models.students.config import MadeFor
from models.students.kind import StudentKind
from models.students.networks.critic import critic_of
from models.students.networks.generator import Generator
from models.students.networks.layers import with_layers
from models.students.pairs import Records, make_pairs
from models.students.prior import token_shares
from models.students.score_kind import ScoreKind
from models.students.start import config_of, student_of
from models.students.teacher import laws, load_teacher
from models.targets.load import pick_device
from models.training.alternating import step_of
from models.training.step import TrainingPlan
from pipelines.distill.records import files_of, num_rows
from pipelines.distill.students.config import StudentOptions
from pipelines.errors import OutputRefused

IMAGES = 64
RECORD_BYTES = 900  # of a row without its picture and tokens, before compression
CACHED = 2.5  # a whole image token by token, against one pass over all of its places
STATES = 3  # of weights, two moments, an average and the best one, while one is written
START_S = 20.0  # of Ray and its workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds and bytes by stage."""

    seconds: dict[str, float]
    num_bytes: dict[str, int]

    def lines(self) -> list[str]:
        """For the user."""
        return [
            f"estimate   {name:<9} {_duration(self.seconds[name]):>8}"
            f"   {self.num_bytes[name] / 2**20:7.1f} MiB"
            for name in self.seconds
        ]

    def refuse_without_room(self, folder: Path) -> None:
        """Raise OutputRefused if the disk cannot hold the run."""
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free, needed = shutil.disk_usage(there).free, sum(self.num_bytes.values())
        if needed > free:
            told = f"the run needs {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free"
            raise OutputRefused(f"output {str(folder)!r}: {told}")


def estimate(config: StudentOptions, made_for: MadeFor, guidance: float) -> Estimate:
    """Measure a step on IMAGES random images; takes seconds."""
    device = pick_device(config.device)
    teacher = load_teacher(present(config.target), device)
    sizes = teacher.config
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(sizes.vocab_size, (IMAGES, sizes.num_tokens), generator=generator)
    classes = torch.zeros(IMAGES, dtype=torch.int64)
    records = Records(classes=classes, tokens=tokens, seeds=np.arange(IMAGES))
    prior = token_shares(
        classes, tokens, num_classes=sizes.num_classes, vocab_size=sizes.vocab_size
    )
    chart = FlowMap(teacher.codebook)
    teach = partial(laws, teacher, guidance=guidance)
    passing = _seconds(lambda: teach(classes, tokens).cpu()) / IMAGES
    began = time.perf_counter()
    pairs = make_pairs(records, teach, chart, prior)
    pairing = (time.perf_counter() - began) / IMAGES
    start = with_layers(teacher, config.layers)
    student = student_of(start, config_of(start, made_for, guidance, config.method), prior)
    student.to(device)
    plan, networks = TrainingPlan(steps=4, batch=IMAGES), list[nn.Module]([student])
    if isinstance(student, Generator):
        critic = critic_of(teacher, student.config).to(device)
        step = step_of(ScoreKind(student, critic, teach, records), plan)
        networks.append(critic)
    else:
        step = step_of(StudentKind(student, teach, pairs), plan)
    stepping = _seconds(step.step) / IMAGES
    rows = config.num_records
    learned = rows if config.data is None else num_rows(files_of(config.data))
    shown = 2 * config.eval_rows
    tensors = [tensor for one in networks for tensor in one.state_dict().values()]
    weights = 4 * sum(tensor.numel() for tensor in tensors)
    row_bytes = RECORD_BYTES + 4 * sizes.num_tokens
    ways = 1 + len(config.passes)
    return Estimate(
        seconds={
            "records": START_S + CACHED * passing * rows,
            "train": START_S
            + pairing * learned * (not isinstance(student, Generator))
            + stepping * config.train_steps * config.train_batch,
            "evaluate": START_S
            + CACHED * passing * shown
            + 2 * config.eval_rows * ways * (passing + pairing / 2),
        },
        num_bytes={
            "records": row_bytes * rows,
            "train": 5 * STATES * weights,
            "evaluate": row_bytes * (shown + config.eval_rows * ways) + weights,
        },
    )


def _seconds(work: Callable[[], object]) -> float:
    """Of the second call: the first one prepares what is prepared once."""
    work()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
