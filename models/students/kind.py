"""The student as a kind of training: it learns the teacher's laws from noise.

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
from models.sampling.noise import Purpose, row_keys, uniform
from models.students.checkpoint import save_student
from models.students.config import MadeFor, StudentConfig
from models.students.network import Student, student_of
from models.students.pairs import Laws, Pairs, make_pairs
from models.students.prior import token_shares
from models.students.records import read_records
from models.students.teacher import laws, load_teacher
from models.tokenizers import TOKENIZER_FOLDER
from models.training.kind import LOSS, SCORE, Samples
from models.training.losses import divergence
from models.training.worker import Worker

EXAM_SHARE, EXAM_RECORDS = 20, 256  # a 20th of the records is kept for exams, at most 256
EXAM_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentLessons:
    """What a student is built of. `files`: of the records, in order."""

    target: str
    made_for: MadeFor
    files: tuple[str, ...]
    label_field: str
    guidance: float
    seed: int


def build_student(lessons: StudentLessons, worker: Worker) -> "StudentKind":
    """Everything before the first step: teacher, records, pairs, student."""
    teacher = load_teacher(lessons.target)
    config = teacher.config
    records = read_records(lessons.files, config, label_field=lessons.label_field)
    sizes = {"num_classes": config.num_classes, "vocab_size": config.vocab_size}
    prior = token_shares(records.classes, records.tokens, **sizes)
    chart = FlowMap(teacher.model.codebook)
    teach = partial(laws, teacher, guidance=lessons.guidance)
    pairs = make_pairs(records, teach, chart, prior, rank=worker.rank, world=worker.world)
    worker.add(pairs.noise)
    worker.add(pairs.guesses)
    torch.manual_seed(lessons.seed)
    said = StudentConfig.of(config, lessons.made_for, lessons.guidance)
    return StudentKind(
        student_of(teacher, said, prior),
        teach,
        pairs,
        seed=lessons.seed,
        kept=min(EXAM_RECORDS, len(pairs) // EXAM_SHARE),
        tokenizer=Path(lessons.target) / TOKENIZER_FOLDER,
    )


class StudentKind:
    """A `Kind` (models/training/kind.py): lowers the divergence of a student from its teacher."""

    def __init__(
        self,
        student: Student,
        laws: Laws,
        pairs: Pairs,
        *,
        seed: int = 0,
        kept: int = 0,
        tokenizer: Path | None = None,
    ) -> None:
        """`laws`: the frozen teacher's logits [B, n, V] of classes [B] and tokens [B, n].

        `kept`: the number of last records that are kept for exams.
        """
        self.model = student
        self._laws, self._pairs, self._seed, self._tokenizer = laws, pairs, seed, tokenizer
        self.num_records = len(pairs) - kept

    def weight(self, samples: Samples) -> float:
        """The places whose tokens the student does not know."""
        starts = start_of(samples.numbers, self._seed, self._length)
        return float((self._length - starts).sum())

    def losses(self, model: nn.Module, samples: Samples) -> dict[str, torch.Tensor]:
        """The sum over samples and unknown places of KL(teacher's law | student's law)."""
        starts = start_of(samples.numbers, self._seed, self._length)
        return {LOSS: self._divergence(model, samples.records, starts)}

    @torch.no_grad()
    def exam(self, model: nn.Module) -> dict[str, float]:
        """The mean divergence in nats a place in one pass, on the records kept for it."""
        kept, total = np.arange(self.num_records, len(self._pairs)), 0.0
        if not len(kept):
            return {}
        for first in range(0, len(kept), EXAM_BATCH):
            some = kept[first : first + EXAM_BATCH]
            starts = torch.zeros(len(some), dtype=torch.int64)
            total += float(self._divergence(model, some, starts))
        mean = total / (len(kept) * self._length)
        return {"divergence": mean, SCORE: -mean}

    def export(self, model: nn.Module, folder: Path) -> None:
        """A student's folder with the target's image tokenizer."""
        assert isinstance(model, Student)
        save_student(model, folder, tokenizer=self._tokenizer)

    @property
    def _length(self) -> int:
        return self._pairs.records.tokens.shape[1]

    def _divergence(self, model: nn.Module, records: Ints, starts: torch.Tensor) -> torch.Tensor:
        chosen, pairs = torch.from_numpy(records), self._pairs
        classes, tokens = pairs.records.classes[chosen], pairs.records.tokens[chosen]
        logits = model(classes, tokens, pairs.noise[chosen], pairs.guesses[chosen], starts)
        wanted = self._laws(classes, tokens).log_softmax(-1)  # [B, n, V]
        each = divergence(wanted, logits)  # [B, n]
        unknown = torch.arange(self._length) >= starts[:, None]
        return (each * unknown).sum()


def start_of(samples: Ints, seed: int, num_tokens: int) -> torch.Tensor:
    """[B] how many tokens each sample's student knows: none for half, else 1 to n - 1."""
    chance = uniform(row_keys(np.full(len(samples), seed), samples, Purpose.TRAINING))
    some = 1 + np.floor((2 * chance - 1) * (num_tokens - 1)).astype(np.int64)
    return torch.from_numpy(np.where(chance < 0.5, 0, some))
