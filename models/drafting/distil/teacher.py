"""The frozen target as a teacher of drafters: its hidden states and laws for whole texts.

States are computed anew in every step, or kept in memory while there is room; never stored.
Letters: B texts, N positions, n layers that are read, C width of the target, V vocabulary.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

from models.batch import Ints, chains
from models.drafting.distil.draft_vocabulary import DraftVocabulary
from models.drafting.distil.exam import Played, Trial, played
from models.drafting.distil.texts import TextBatch
from models.drafting.heads.files import target_head
from models.readout import Readout
from models.targets.load import load_target
from models.targets.target import Target
from models.training.engines.worker import CPU
from models.training.kind import Samples

KEPT_BYTES = 2 * 2**30  # of states that are kept in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What a drafter learns from for a batch of texts.

    `states` [B, N, n + 1, C]: the taps and the last layer. `laws` [M, V]: log-probabilities of the
    tokens that the target wrote, those of `TextBatch.before`.
    """

    states: torch.Tensor
    laws: torch.Tensor


class Teaches(Protocol):
    """The target, in this process or elsewhere."""

    guidance: float

    def teach(
        self,
        batch: TextBatch,
        records: Ints,
        samples: Samples | None = None,
        vocabulary: DraftVocabulary | None = None,
    ) -> Taught:
        """What is learned from a batch.

        `records` [B]: the texts' numbers. `samples`: as training takes them in turn, if so.
        `vocabulary`: laws have its K + 1 columns; None: all V.
        """

    def examine(self, trial: Trial, drafter: Path) -> dict[int, Played]:
        """Runs in the real loop with the drafter in this folder, by temperature, 0 and 1."""


class Teacher:
    """A target and its output matrix `head` [V, C].

    What it teaches is on the target's device; the states that are kept are in the CPU's memory.
    """

    def __init__(
        self,
        target: Target,
        head: torch.Tensor,
        taps: tuple[int, ...] = (),
        guidance: float = 1.0,
    ) -> None:
        """`taps`: layers that the drafter reads besides the last, numbered as in `Readout`.

        `guidance`: scale of classifier-free guidance (models/targets/guided.py); 1: off. Logits are
        linear in the last states, so these are combined as the logits are.
        """
        self.target, self.taps = target, taps
        self.head = head.float().to(target.device)
        self.guidance = guidance
        self._readout = Readout(layers=(*taps, -1))
        self._kept: dict[int, torch.Tensor] = {}
        self._sums: dict[int, torch.Tensor] = {}
        self._room = KEPT_BYTES

    def teach(
        self,
        batch: TextBatch,
        records: Ints,
        samples: Samples | None = None,
        vocabulary: DraftVocabulary | None = None,
    ) -> Taught:
        """States are kept by the texts' numbers while there is room."""
        states = self.states(batch, records)
        last = states[:, :, -1][batch.before]  # [M, C]
        if vocabulary is None:
            return Taught(states=states, laws=self.laws(last))
        sums = self._log_sums(batch, records, states)[batch.before][:, None]
        known = F.linear(last, self.head[vocabulary.ids.to(self.head.device)]) - sums
        return Taught(states=states, laws=vocabulary.laws(known))

    def examine(self, trial: Trial, drafter: Path) -> dict[int, Played]:
        """With this target."""
        return played(trial, drafter, self.target)

    def states(self, batch: TextBatch, numbers: Ints) -> torch.Tensor:
        """[B, N, n + 1, C] float32: the taps and the last layer; `numbers` [B] are the texts'.

        Texts with a number below 0 are not kept.
        """
        new = [row for row, number in enumerate(numbers.tolist()) if number not in self._kept]
        read: dict[int, torch.Tensor] = {}
        if new:
            texts = [list(batch.texts[row].tokens) for row in new]
            read = dict(zip(new, self._read(texts), strict=True))
        out = self.head.new_zeros(*batch.tokens.shape, len(self.taps) + 1, self.head.shape[1])
        for row, number in enumerate(numbers.tolist()):
            own = read[row] if row in read else self._kept[number]
            out[row, : len(own)] = own
            self._keep(number, own)
        return out

    def _keep(self, number: int, states: torch.Tensor) -> None:
        if number >= 0 and number not in self._kept and states.nbytes <= self._room:
            self._kept[number] = states
            self._room -= states.nbytes

    def _read(self, texts: list[list[int]]) -> list[torch.Tensor]:
        states = self._states(texts)
        if self.guidance == 1.0:
            return states
        nothing = self.target.input_size - 1  # in place of conditions
        bare = [[nothing if id_ >= self.target.vocab_size else id_ for id_ in t] for t in texts]
        pairs = zip(states, self._states(bare), strict=True)
        return [without + self.guidance * (with_ - without) for with_, without in pairs]

    @torch.inference_mode()
    def _states(self, texts: list[list[int]]) -> list[torch.Tensor]:
        cache = self.target.new_cache(len(texts), max(map(len, texts)))
        batch = chains(np.arange(len(texts)), texts, wanted=np.zeros(0, dtype=np.int64))
        states = self.target.score(cache, replace(batch, readout=self._readout)).states
        assert states is not None
        return [part.float().cpu().clone() for part in states.split([len(t) for t in texts])]

    def laws(self, last: torch.Tensor) -> torch.Tensor:
        """[..., V] log-probabilities of the next token, from states [..., C] of the last layer."""
        return F.linear(last, self.head).log_softmax(-1)

    def _log_sums(self, batch: TextBatch, numbers: Ints, states: torch.Tensor) -> torch.Tensor:
        """[B, N] log Σ exp of the logits after each token: what normalises laws of some tokens.

        `states`: see `states`. Kept in memory, since all of the output matrix is needed for them;
        those of texts with a number below 0 are not.
        """
        out = states.new_zeros(batch.tokens.shape)
        for row, number in enumerate(numbers.tolist()):
            own = self._sums.get(number)
            if own is None:
                last = states[row, : len(batch.texts[row].tokens), -1]
                own = F.linear(last, self.head).logsumexp(-1)
                if number >= 0:
                    self._sums[number] = own
            out[row, : len(own)] = own
        return out


def load_teacher(
    folder: Path,
    taps: tuple[int, ...] = (),
    guidance: float = 1.0,
    device: str | torch.device = CPU,
) -> Teacher:
    """The teacher of a checkpoint, with guidance of this scale, on a device.

    Raises:
        UnsupportedCheckpoint: it cannot be loaded, or has no output matrix by Llama's name.
    """
    target = load_target(folder, dtype=torch.float32, device=device)
    return Teacher(target, target_head(folder), taps, guidance)
