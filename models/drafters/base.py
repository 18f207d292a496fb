"""What a drafter is: something that guesses ahead and is told what came of it."""

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.batch import Ints
from models.draft import Draft, Shape
from models.noise import Purpose
from models.processing import Processor
from models.sequence import Sequence
from models.verify.round import Commit, Round, RoundNoise


@dataclass(frozen=True, slots=True)
class DraftContext:
    """How the target will process and draw, so that a drafter in the same process can do the same.

    `owners` [B] are the indices of the drafter's sequences in the processor and the noise.
    `sampled`: the rule needs tokens drawn independently of the target's noise, and their q.
    """

    processor: Processor
    noise: RoundNoise
    owners: Ints
    sampled: bool

    @property
    def purpose(self) -> Purpose:
        """Which random numbers the drafter draws with."""
        return Purpose.DRAFT if self.sampled else Purpose.TOKEN


class Drafter(Protocol):
    """Guesses; may be wrong, late or dead, never decides."""

    name: str
    max_width: int  # guesses it can give for one position; 1: chains only
    passes: int  # forward passes of its model so far
    transfer_s: float  # seconds of the loop spent on messages so far; read where it is remote

    @property
    def remote(self) -> bool:
        """Whether it works in another process while the target scores; may change at any time."""

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """One draft per sequence, `shape` at most, possibly empty."""

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """A round was committed: its sequences have grown by the tokens of their commits."""

    def forget(self, request_id: str) -> None:
        """The request has ended."""


def useful_depth(sequence: Sequence, shape: Shape) -> int:
    """Depth beyond which a guess could not be emitted any more."""
    return max(0, min(shape.depth, sequence.num_left - 1))


def clip(draft: Draft, depth: int, levels: Ints) -> Draft:
    """The draft without nodes deeper than `depth`; levels [N] are the nodes' depths, ascending."""
    kept = int(np.searchsorted(levels, depth, side="right"))
    if kept == len(draft):
        return draft
    probs = None if draft.probs is None else draft.probs[:kept]
    return Draft(tokens=draft.tokens[:kept], parents=draft.parents[:kept], probs=probs)
