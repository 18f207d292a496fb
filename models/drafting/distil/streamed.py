"""A teacher of drafters whose target is elsewhere: asked ahead, in the order of the training.

Letters: B texts, N positions, n taps, C width of the target, M places, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from models.batch import Ints
from models.drafting.distil.draft_vocabulary import DraftVocabulary
from models.drafting.distil.exam import Played, Trial
from models.drafting.distil.networks.hydra import OUTPUT
from models.drafting.distil.networks.named import Named
from models.drafting.distil.reading import Need, Reading, need_of
from models.drafting.distil.teacher import Taught
from models.drafting.distil.texts import Text, TextBatch
from models.drafting.heads.medusa_head import SHARED
from models.training.ahead import Ahead, Window
from models.training.engines.worker import Worker
from models.training.kind import Samples
from models.training.step import TrainingPlan

HEADS = {"medusa": SHARED, "hydra": OUTPUT}  # the target's output matrix in their networks


class Readers(Protocol):
    """Processes that hold the target. Their answers are functions of the texts."""

    def read(
        self, texts: Sequence[Text], vocabulary: DraftVocabulary | None = None
    ) -> Callable[[], Reading]:
        """Begin to read texts; what it returns waits for the answer.

        `vocabulary`: the laws are over it; None: over all tokens.
        """

    def examine(self, trial: Trial, files: Mapping[str, bytes]) -> dict[int, Played]:
        """Runs in the real loop with the drafter in these files, by temperature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the target: taps that are read, its width, and what is sent."""

    num_taps: int
    width: int
    need: Need


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Whom to ask, and how a training takes its samples: `plan`, in so many parts of a step.

    `until`: steps after which the training ends, or its texts are others. `window`: steps that are
    asked ahead.
    """

    readers: Readers
    plan: TrainingPlan
    until: int
    window: int
    accumulate: int = 1


class StreamedTeacher:
    """A `Teaches` (models/drafting/distil/teacher.py) without a target."""

    def __init__(
        self,
        readers: Readers,
        texts: Sequence[Text],
        sizes: Sizes,
        ahead: Ahead,
        *,
        window: int,
        guidance: float = 1.0,
        head: torch.Tensor | None = None,
        vocabulary: DraftVocabulary | None = None,
    ) -> None:
        """Ask for at most `window` parts of batches ahead.

        `head` [V, C]: the target's output matrix, which the drafter has; for laws that are not
        sent. `vocabulary`: of the laws that training takes in turn.
        """
        assert sizes.need.laws or head is not None, "laws are sent, or computed with the head"
        self.guidance = guidance
        self._readers, self._texts, self._sizes, self._head = readers, texts, sizes, head
        self._vocabulary = vocabulary
        self._window = Window(ahead, self._ask, size=window)

    def teach(
        self,
        batch: TextBatch,
        records: Ints,
        samples: Samples | None = None,
        vocabulary: DraftVocabulary | None = None,
    ) -> Taught:
        """The next answer of the window; texts out of turn, as for exams, are asked for now."""
        if samples is None:
            return self._taught(batch, self._readers.read(batch.texts, vocabulary)())
        asked = self._vocabulary
        assert (vocabulary is None) == (asked is None), "what was asked ahead has other columns"
        return self._taught(batch, self._window.take(samples))

    def examine(self, trial: Trial, drafter: Path) -> dict[int, Played]:
        """Where the target is."""
        files = {file.name: file.read_bytes() for file in sorted(drafter.iterdir())}
        return self._readers.examine(trial, files)

    def _ask(self, samples: Samples) -> Callable[[], Reading]:
        texts = [self._texts[number] for number in samples.records.tolist()]
        return self._readers.read(texts, self._vocabulary)

    def _taught(self, batch: TextBatch, reading: Reading) -> Taught:
        sizes = self._sizes
        device, shape = batch.tokens.device, (*batch.tokens.shape, sizes.num_taps + 1, sizes.width)
        states = torch.zeros(shape, device=device)
        if sizes.need.columns:
            told = torch.from_numpy(reading.states).to(device)
            states[:, :, list(sizes.need.columns)] = told
        if sizes.need.laws:
            return Taught(states=states, laws=torch.from_numpy(reading.laws).to(device))
        assert self._head is not None
        last = states[:, :, -1][batch.before]
        return Taught(states=states, laws=F.linear(last, self._head).log_softmax(-1))


def streamed_teacher(
    stream: Stream,
    network: nn.Module,
    texts: Sequence[Text],
    *,
    kind: str,
    kept: int,
    worker: Worker,
    width: int,
    guidance: float,
    vocabulary: DraftVocabulary | None,
) -> StreamedTeacher:
    """The teacher of a worker's drafter of this kind; the last `kept` texts are for exams."""
    num_taps, some = len(taps_of(network)), vocabulary is not None
    head = None
    if isinstance(network, Named) and kind in HEADS and not some:
        head = network.tensor(HEADS[kind])
    return StreamedTeacher(
        stream.readers,
        texts,
        Sizes(num_taps=num_taps, width=width, need=need_of(kind, num_taps, some=some)),
        Ahead(
            plan=stream.plan,
            until=stream.until,
            num_records=len(texts) - kept,
            rank=worker.rank,
            world=worker.world,
            accumulate=stream.accumulate,
        ),
        window=stream.window * stream.accumulate,
        guidance=guidance,
        head=head,
        vocabulary=vocabulary,
    )


def taps_of(network: nn.Module) -> tuple[int, ...]:
    """The layers of the target that a drafter reads, besides the last."""
    return tuple(network.taps)  # type: ignore[arg-type]
