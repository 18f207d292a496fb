"""Drafters that read the target: hidden states and likeliest tokens of committed positions.

Letters: P positions, n layers, D width of the target, k likeliest tokens.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Protocol

import torch

from models.drafting.drafter import Drafter
from models.readout import Top
from models.requests.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the target returned for P consecutive positions of a request, as the drafter wants it.

    `first` is the absolute position of the first one; the token at it is `sequence.tokens[first]`.
    A position's states were computed from the tokens up to and including its own, and `top` are
    the likeliest tokens of the next position.
    """

    sequence: Sequence
    first: int
    states: torch.Tensor | None  # [P, n, D]
    top: Top | None  # [P, k]


class ReadingDrafter(Drafter, Protocol):
    """A drafter whose `wants` is not None.

    `whole`: it must read every position of a request, so that no prompt may begin with what is in
    the target's cache already, and `begin` is not called.
    """

    whole: bool

    def begin(self, sequence: Sequence) -> int:
        """A request joins. Returns how many of its first positions need not come.

        Where it is not called, all of them come.
        """

    def read(self, readings: Several[Reading]) -> None:
        """Committed positions, of prompts as well as of generated tokens.

        Each position of a request comes once and in order, before the next `propose`; of those
        that need not, the first ones may be missing. That of its last token never comes, because
        the target does not read it, nor do positions of drafts that were rejected. The positions of
        a round come before its `observe`.
        """
