"""The protocol of a drafter: it proposes tokens, and learns which were accepted."""

from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from models.batch import Ints
from models.drafting.draft import EMPTY, Draft, Shape
from models.readout import Readout
from models.requests.sequence import Sequence
from models.sampling.noise import Purpose
from models.sampling.processing import Processor
from models.verify.round import Commit, Round, RoundNoise


@dataclass(frozen=True, slots=True)
class DraftContext:
    """The target's processing and noise, which a drafter in the same process can use as well.

    `owners` [B] are the indices of the drafter's sequences in the processor and the noise.
    `sampled`: the rule needs tokens sampled independently of the target's noise, and their q.
    """

    processor: Processor
    noise: RoundNoise
    owners: Ints
    sampled: bool

    @property
    def purpose(self) -> Purpose:
        """The purpose of the random numbers that the drafter samples with."""
        return Purpose.DRAFT if self.sampled else Purpose.TOKEN


class Drafter(Protocol):
    """Proposes draft tokens. It may be wrong, late or dead, because verification decides."""

    name: str
    max_width: int  # most nodes for one position; 1: chains only
    passes: int  # forward passes of its model so far
    transfer_s: float  # seconds of the loop spent on messages so far; read if it is remote

    @property
    def bytes_per_entry(self) -> int:
        """Of one token in its own cache in this process; 0: it has none."""

    @property
    def wants(self) -> Readout | None:
        """What it reads of the target, see `ReadingDrafter`; None: nothing."""

    @property
    def remote(self) -> bool:
        """Whether it drafts in another process while the target scores; may change at any time."""

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """One draft for each sequence, of at most `shape`; may be empty."""

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """A round was committed: its sequences have grown by the tokens of their commits."""

    def forget(self, request_id: str) -> None:
        """The request has ended."""


def build_none(*arguments: object, **options: object) -> None:
    """No drafter, for plain decoding; see `Build` in models/engine.py."""


def propose_some(
    sequences: Several[Sequence],
    held: list[int],
    context: DraftContext,
    propose: Callable[[list[Sequence], DraftContext], list[Draft]],
) -> list[Draft]:
    """Drafts of the sequences `held` (indices), by `propose`; the others have none."""
    if len(held) == len(sequences):
        return propose(list(sequences), context)
    drafts = [EMPTY] * len(sequences)
    if held:
        some = replace(context, owners=context.owners[held])
        made = propose([sequences[b] for b in held], some)
        for b, draft in zip(held, made, strict=True):
            drafts[b] = draft
    return drafts


def useful_depth(sequence: Sequence, shape: Shape) -> int:
    """The depth beyond which the request could not emit a draft token any more."""
    return max(0, min(shape.depth, sequence.num_left - 1))


def clip(draft: Draft, depth: int, levels: Ints) -> Draft:
    """The draft without nodes deeper than `depth`; levels [N]: the nodes' depths, ascending."""
    kept = int(np.searchsorted(levels, depth, side="right"))
    if kept == len(draft):
        return draft
    probs = None if draft.probs is None else draft.probs[:kept]
    return Draft(tokens=draft.tokens[:kept], parents=draft.parents[:kept], probs=probs)
