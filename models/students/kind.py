"""The student as a kind of training: it learns from noise what its teacher makes of it.

Letters: B samples of a worker, n tokens of an image, V vocabulary.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.batch import Ints
from models.sampling.flow import FlowMap
from models.students.checkpoint import save_student
from models.students.config import MadeFor
from models.students.losses import Given, Pictures, loss_of_heads, loss_of_laws, pictures_of
from models.students.methods import TWO_HEAD
from models.students.networks.critic import critic_of
from models.students.networks.generator import Generator
from models.students.networks.layers import with_layers
from models.students.networks.raster import Student
from models.students.networks.scale import ScaleStudent
from models.students.networks.two_head import TwoHeadStudent
from models.students.pairs import Laws, Pairs, make_pairs
from models.students.prior import token_shares
from models.students.records import read_records
from models.students.score_kind import ScoreKind
from models.students.start import config_of, student_of
from models.students.starts import starts_of
from models.students.teacher import laws, load_teacher
from models.tokenizers import TOKENIZER_FOLDER
from models.training.engines.worker import Worker
from models.training.kind import LOSS, SCORE, Samples

EXAM_SHARE, EXAM_RECORDS = 20, 256  # a 20th of the records is kept for exams, at most 256
EXAM_BATCH = 64

Learner = Student | TwoHeadStudent | ScaleStudent


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentLessons:
    """What a student is built of. `files`: of the records, in order."""

    target: str
    made_for: MadeFor
    files: tuple[str, ...]
    label_field: str
    guidance: float
    method: str
    seed: int
    layers: int | None = None  # that the student keeps of the target's; None: all


def build_student(lessons: StudentLessons, worker: Worker) -> "StudentKind | ScoreKind":
    """Everything before the first step: teacher, records, noise for them, student."""
    teacher = load_teacher(lessons.target, worker.device)
    config = teacher.config
    records = read_records(lessons.files, config, label_field=lessons.label_field)
    sizes = {"num_classes": config.num_classes, "vocab_size": config.vocab_size}
    prior = token_shares(records.classes, records.tokens, **sizes)
    teach = partial(laws, teacher, guidance=lessons.guidance)
    torch.manual_seed(lessons.seed)
    start = with_layers(teacher, lessons.layers)
    said = config_of(start, lessons.made_for, lessons.guidance, lessons.method)
    student = student_of(start, said, prior).to(worker.device)
    kept = min(EXAM_RECORDS, len(records) // EXAM_SHARE)
    tokenizer = Path(lessons.target) / TOKENIZER_FOLDER
    if isinstance(student, Generator):
        critic = critic_of(teacher, student.config).to(worker.device)
        return ScoreKind(
            student, critic, teach, records, seed=lessons.seed, kept=kept, tokenizer=tokenizer
        )
    chart = FlowMap(teacher.codebook)
    pairs = make_pairs(records, teach, chart, prior, rank=worker.rank, world=worker.world)
    for part in pairs.parts():
        worker.add(part)
    by_heads = lessons.method == TWO_HEAD
    return StudentKind(
        student,
        teach,
        pairs,
        seed=lessons.seed,
        kept=kept,
        tokenizer=tokenizer,
        pictures=pictures_of(lessons.target, worker.device) if by_heads else None,
    )


class StudentKind:
    """A `Kind` (models/training/kind.py): lowers the loss of the student's method (losses.py)."""

    def __init__(
        self,
        student: Learner,
        laws: Laws,
        pairs: Pairs,
        *,
        seed: int = 0,
        kept: int = 0,
        tokenizer: Path | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        """`laws`: the frozen teacher's logits [B, n, V] of classes [B] and tokens [B, n].

        `kept`: the number of last records that are kept for exams. `pictures`: a part of the loss
        of `two-head`.
        """
        self.model, self._pictures = student, pictures
        self._bounds = student.config.bounds
        self._laws, self._pairs, self._seed, self._tokenizer = laws, pairs, seed, tokenizer
        self.num_records = len(pairs) - kept

    def weight(self, samples: Samples) -> float:
        """The places whose tokens the student does not know."""
        starts = starts_of(samples.numbers, self._seed, self._bounds)
        return float((self._length - starts).sum())

    def losses(self, model: nn.Module, samples: Samples) -> dict[str, torch.Tensor]:
        """The method's loss, summed over samples and unknown places."""
        starts = starts_of(samples.numbers, self._seed, self._bounds)
        return {LOSS: self._loss(model, samples.records, starts)}

    @torch.no_grad()
    def exam(self, model: nn.Module) -> dict[str, float]:
        """The mean loss of a place in one pass, on the records kept for it.

        By `flow-map` it is the divergence from the teacher's laws, in nats.
        """
        kept, total = np.arange(self.num_records, len(self._pairs)), 0.0
        if not len(kept):
            return {}
        for first in range(0, len(kept), EXAM_BATCH):
            some = kept[first : first + EXAM_BATCH]
            starts = torch.zeros(len(some), dtype=torch.int64)
            total += float(self._loss(model, some, starts))
        mean = total / (len(kept) * self._length)
        name = "loss" if isinstance(self.model, TwoHeadStudent) else "divergence"
        return {name: mean, SCORE: -mean}

    def export(self, model: nn.Module, folder: Path) -> None:
        """A student's folder with the target's image tokenizer."""
        assert isinstance(model, Learner)
        save_student(model, folder, tokenizer=self._tokenizer)

    @property
    def _device(self) -> torch.device:
        return self.model.prior.device

    @property
    def _length(self) -> int:
        return self._pairs.records.tokens.shape[1]

    def _loss(self, model: nn.Module, records: Ints, starts: torch.Tensor) -> torch.Tensor:
        chosen, pairs = torch.from_numpy(records), self._pairs
        given = Given(
            classes=pairs.records.classes[chosen],
            tokens=pairs.records.tokens[chosen],
            noise=pairs.noise[chosen],
            guesses=pairs.guesses[chosen],
            starts=starts,
        ).to(self._device)
        if isinstance(self.model, TwoHeadStudent):
            return loss_of_heads(model, given, self.model.codebook, self._pictures)
        kept = pairs.logits
        found = self._laws(given.classes, given.tokens) if kept is None else kept[chosen]
        return loss_of_laws(model, given, found.to(self._device))
