"""A drafter as a kind of training: it learns the target's laws on the target's own texts.

A drafter predicts, at index i of a text, the tokens from i + `first` on: a draft model the next
one, heads those after the last verified token, each by a law of its own.
Letters: B texts, N positions, n layers that are read, M places, K depths, V vocabulary.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from models.batch import Ints
from models.drafting.distil.calibration import best_sharpness
from models.drafting.distil.draft_vocabulary import DraftVocabulary
from models.drafting.distil.exam import Trial, sums
from models.drafting.distil.foreseen import compared
from models.drafting.distil.judged import Judged
from models.drafting.distil.teacher import Teaches
from models.drafting.distil.texts import Text, TextBatch, batch_of
from models.drafting.folder_kind import ABOUT
from models.drafting.sharpness import FIELD
from models.metrics.agreement import accepted_length
from models.training.engines.worker import CPU
from models.training.kind import LOSS, Samples
from models.training.losses import divergence, match_loss

WORDS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
EXAM_BATCH = 8
EXAM = "laws:v1"  # what SCORE means: scores of states compare with those of the same exam only


class Shape(Protocol):
    """What the kinds of drafters do differently."""

    first: int  # tokens between an index and the first one predicted there

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the drafter as `--drafter` takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a drafter is taught.

    `depth`: of its chains. `decay`: the weight of a depth, relative to the one before. From sample
    `match_from` on, the match loss is lowered, before it the divergence. `kept`: last texts that
    are kept for exams. `exam_tokens`: of each of them in the real loop.
    """

    depth: int
    decay: float = 0.8
    match_from: int = 0
    kept: int = 16
    exam_tokens: int = 48


class DrafterKind:
    """A `Kind` (models/training/kind.py)."""

    def __init__(
        self,
        model: nn.Module,
        shape: Shape,
        teacher: Teaches,
        texts: Sequence[Text],
        course: Course,
        *,
        target: Path,
        vocabulary: DraftVocabulary | None = None,
        about: Mapping[str, object] | None = None,
        device: torch.device = CPU,
    ) -> None:
        """`vocabulary`: what the model can draft; None: everything.

        `about`: what the export says of itself, besides the depth. `device`: of model and teacher.
        """
        self._device = device
        self._vocabulary = vocabulary
        self.model, self.num_records = model, len(texts) - course.kept
        self._shape, self._teacher, self._texts, self._course = shape, teacher, texts, course
        self._target, self._about = target, dict(about or {})

    def weight(self, samples: Samples) -> float:
        """The tokens of the target that are predicted, by depth and its weight."""
        total = 0.0
        for number in samples.records.tolist():
            text = self._texts[number]
            for offset, weight in self._depths(self._num_depths):
                total += weight * max(0, len(text.tokens) - max(text.num_prompt, offset))
        return total

    def losses(self, model: nn.Module, samples: Samples) -> dict[str, torch.Tensor]:
        """The weighted sum over texts, depths and places of the loss in force."""
        batch = batch_of(self._texts, samples.records, self._device)
        late = torch.from_numpy(samples.numbers >= self._course.match_from).to(self._device)  # [B]
        laws, states, rows = self._taught(batch, samples.records, samples, self._vocabulary)
        total = torch.zeros((), device=self._device)
        found: list[torch.Tensor] = model(batch.tokens, states)
        for (offset, weight), logits in zip(self._depths(len(found)), found, strict=True):
            there = batch.written[:, offset:]  # [B, N - offset]
            at = rows[:, offset - 1 : -1]
            for now, loss in ((~late, divergence), (late, match_loss)):
                some = there & now[:, None]
                if some.any():
                    own = logits[:, : there.shape[1]][some]
                    total = total + weight * loss(laws[at[some]], own).sum()
        return {LOSS: total}

    def exam(self, model: nn.Module) -> dict[str, float]:
        """Chances by the laws on the texts kept for it, and tokens per round in the real loop.

        SCORE is the expected length by the laws, the mean of temperatures 0 and 1. It has no noise
        of sampling, which in the loop exceeds the difference of two states. Where the loop needs
        other numbers of rounds than the laws foresee, training and decoding disagree: then the
        score is at most the loop's length.
        """
        kept = np.arange(self.num_records, len(self._texts))
        if not len(kept):
            return {}
        figures = self._chances(model, kept)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "drafter"
            self._write(model, folder, {})
            played = self._teacher.examine(self.trial(), folder)
        return compared(figures, played, partial(self._foreseen, model))

    @torch.no_grad()
    def _foreseen(
        self, model: nn.Module, texts: Sequence[Text], temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, N, K] the chances by the laws on these texts, and [B, N] the lengths."""
        nameless = np.full(len(texts), -1)  # so that nothing of them is kept
        batch = batch_of(texts, np.arange(len(texts)), self._device)
        judged = self._judged_in(model, batch, nameless)
        told = torch.full((len(texts),), temperature, device=self._device)
        return self._by_depth(judged, told).cpu(), self._lengths(judged, told).cpu()

    def trial(self) -> Trial:
        """The exam in the real loop."""
        return Trial(
            target=str(self._target),
            texts=self._texts[self.num_records :],
            depth=self._course.depth,
            max_tokens=self._course.exam_tokens,
            batch_size=4,
            guidance=self._teacher.guidance,
        )

    def export(self, model: nn.Module, folder: Path) -> None:
        """A folder that `--drafter` takes, with the words of the target's tokenizer.

        With texts kept for exams, drafters that read the target get their SHARPNESS by level.
        """
        fits = self._shape.first > 1 and self.num_records < len(self._texts)
        self._write(model, folder, {FIELD: self._fitted(model)} if fits else {})

    @torch.no_grad()
    def _fitted(self, model: nn.Module) -> list[float]:
        """What `best_sharpness` finds for each level, on some texts kept for exams."""
        generator = torch.Generator().manual_seed(0)
        kept = np.arange(self.num_records, len(self._texts))
        judged = self._judged(model, kept[:EXAM_BATCH])
        laws = [judged.at(self._shape.first + k, k)[:2] for k in range(len(judged.found))]
        return [best_sharpness(p.cpu(), q.cpu(), generator) for p, q in laws if len(p)]

    def _write(self, model: nn.Module, folder: Path, fitted: Mapping[str, object]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._shape.save(model, folder)
        for name in WORDS:
            if (self._target / name).exists():
                shutil.copy(self._target / name, folder / name)
        about = {**self._about, "depth": self._course.depth, **fitted}
        (folder / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @property
    def _num_depths(self) -> int:
        return 1 if self._shape.first == 1 else self._course.depth

    def _depths(self, count: int) -> list[tuple[int, float]]:
        """The offset and the weight of each depth."""
        weights = [self._course.decay**k for k in range(count)]
        return [(self._shape.first + k, w / sum(weights)) for k, w in enumerate(weights)]

    @torch.no_grad()
    def _taught(
        self,
        batch: TextBatch,
        records: Ints,
        samples: Samples | None = None,
        vocabulary: DraftVocabulary | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The target's laws [M, V] of the tokens it wrote, its states, [B, N] each index's law.

        The law of a token is at the index before it. See `Taught`.
        """
        taught = self._teacher.teach(batch, records, samples, vocabulary)
        rows = torch.full(batch.written.shape, -1, device=self._device)
        rows[batch.before] = torch.arange(len(taught.laws), device=self._device)
        return taught.laws, taught.states, rows

    @torch.no_grad()
    def lengths_at(
        self, model: nn.Module, numbers: Ints, temperatures: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[B, N] the expected tokens of a round by the laws, at temperatures [B]; default: 1.

        At the place of a chain's first token. NaN where no chain of K tokens can be judged: the
        target did not write them, or nothing before them is read.
        """
        return self._lengths(self._judged(model, numbers), temperatures)

    @torch.no_grad()
    def _chances(self, model: nn.Module, kept: Ints) -> dict[str, float]:
        """Agreement J, acceptance alpha and G of the first token; the length of chains by laws."""
        totals, count = torch.zeros(3, dtype=torch.float64), 0
        lengths: list[torch.Tensor] = []
        for begin in range(0, len(kept), EXAM_BATCH):
            judged = self._judged(model, kept[begin : begin + EXAM_BATCH])
            p, q, same = judged.at(self._shape.first, 0)
            totals += sums(p, q, same).cpu()
            count += len(p)
            own = self._lengths(judged)
            lengths.append(own[~own.isnan()])
        names = ("agreement", "acceptance", "same_likeliest")
        figures = dict(zip(names, (totals / count).tolist(), strict=True))
        by_laws = torch.cat(lengths)
        return figures | ({"length_by_laws_t1": float(by_laws.mean())} if len(by_laws) else {})

    def _judged(self, model: nn.Module, numbers: Ints) -> Judged:
        return self._judged_in(model, batch_of(self._texts, numbers, self._device), numbers)

    def _judged_in(self, model: nn.Module, batch: TextBatch, numbers: Ints) -> Judged:
        laws, states, rows = self._taught(batch, numbers)
        found = [logits.log_softmax(-1) for logits in model(batch.tokens, states)]
        return Judged(batch=batch, laws=laws, rows=rows, found=found, vocabulary=self._vocabulary)

    def _lengths(self, judged: Judged, temperatures: torch.Tensor | None = None) -> torch.Tensor:
        """See `lengths_at`."""
        depth, first, written = self._course.depth, self._shape.first, judged.batch.written
        out = torch.full(written.shape, torch.nan, device=self._device)
        told = torch.ones_like(out[:, 0]) if temperatures is None else temperatures
        starts = written.shape[1] - depth + 1
        if starts <= first:
            return out
        whole = written[:, :starts].clone()
        whole[:, :first] = False  # nothing before these places is read
        for k in range(depth):
            whole &= written[:, k : k + starts]
        out[:, :starts][whole] = accepted_length(self._by_depth(judged, told)[:, :starts][whole])
        return out

    def _by_depth(self, judged: Judged, temperatures: torch.Tensor) -> torch.Tensor:
        """[B, N, K] that the draft of a token is accepted, by the place of its chain's first token.

        0 where the target did not write the token.
        """
        depth, first, written = self._course.depth, self._shape.first, judged.batch.written
        chain = len(judged.found) > 1  # heads have a law for each depth
        out = torch.zeros(*written.shape, depth, device=self._device)
        for k in range(depth):
            offset = first + k if chain else first
            there, accepted = judged.accepted(offset, k if chain else 0, temperatures)
            each = torch.zeros(written.shape, device=self._device)
            each[:, offset:][there] = accepted
            out[:, : written.shape[1] - k, k] = each[:, k:]
        return out
