"""What of a target a drafter learns from, where the target is in another process.

Nothing more than its kind needs goes from there to the training. A pure function of the texts.
Letters: B texts, N positions, n taps, C width of the target, M places, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.drafting.distil.draft_vocabulary import DraftVocabulary
from models.drafting.distil.teacher import Teacher
from models.drafting.distil.texts import Text, batch_of

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What is sent: of the n + 1 states of a token those of `columns`, and `laws` or not."""

    columns: tuple[int, ...]
    laws: bool

    def num_bytes(self, *, tokens: int, written: int, width: int, vocab_size: int) -> int:
        """Of texts of `tokens` tokens, of which the target wrote `written`."""
        states = tokens * len(self.columns) * width
        return 4 * (states + (written * vocab_size if self.laws else 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Of a batch of texts: states [B, N, columns, C], and laws [M, V] or [0, 0].

    The places of the laws are those of `TextBatch.before`; with a vocabulary, laws have its K + 1
    columns.
    """

    states: Floats
    laws: Floats


def need_of(kind: str, num_taps: int, *, some: bool = False) -> Need:
    """What a kind of drafter learns from; `some`: it can draft some tokens only.

    A draft model reads no state, and heads the last one only, with whose output matrix, which they
    have, the laws are computed in the training. Heads of some tokens have some of its rows.
    """
    if kind == "model":
        return Need(columns=(), laws=True)
    if kind == "eagle":
        return Need(columns=tuple(range(num_taps)), laws=True)
    return Need(columns=(num_taps,), laws=some)


def read(
    teacher: Teacher,
    texts: Sequence[Text],
    need: Need,
    vocabulary: DraftVocabulary | None = None,
) -> Reading:
    """Computed for these texts alone; nothing is kept."""
    batch = batch_of(texts, np.arange(len(texts)))
    taught = teacher.teach(batch, np.full(len(texts), -1), vocabulary=vocabulary)
    laws = taught.laws.cpu() if need.laws else torch.zeros(0, 0)
    states = taught.states[:, :, list(need.columns)].cpu()
    return Reading(states=states.numpy(), laws=laws.numpy())
