"""Hands what the target returned for committed positions to a drafter that reads it."""

from collections.abc import Sequence as Several
from dataclasses import replace
from typing import cast

import numpy as np
import torch

from models.batch import Batch, Ints, Scores
from models.drafting.drafter import Drafter
from models.drafting.reading import Reading, ReadingDrafter
from models.loop.packing import Piece
from models.readout import Readout, Top
from models.requests.sequence import Sequence
from models.targets.target import Target
from models.verify.round import Commit, Round


class Readings:
    """The positions of each request that the drafter has read; each is handed over once."""

    def __init__(self, drafter: ReadingDrafter, wants: Readout) -> None:
        self._drafter, self._wants, self.whole = drafter, wants, drafter.whole
        self._known: dict[str, int] = {}

    def begin(self, sequence: Sequence) -> int:
        """A request joins. Returns how many of its first positions need not be scored."""
        return self._drafter.begin(sequence)

    def undo(self, sequence: Sequence) -> None:
        """A request that began did not join after all."""
        self._drafter.forget(sequence.id)

    def asking(self, batch: Batch) -> Batch:
        """The batch, asking for what the drafter wants."""
        wanted = None if self._wants.top_k else batch.wanted
        return replace(batch, wanted=wanted, readout=self._wants)

    def of_prompts(
        self,
        sequences: Several[Sequence],
        begins: Several[int],
        pieces: Several[Piece],
        scores: Scores,
    ) -> None:
        """Pieces of prompts were read; `begins`: the position of each one's first token."""
        start, readings = 0, []
        for sequence, begin, (_, tokens) in zip(sequences, begins, pieces, strict=True):
            nodes = np.arange(start, start + len(tokens))
            readings += self._reading(sequence, begin, nodes, scores)
            start += len(tokens)
        self._drafter.read(readings)

    def of_round(self, round_: Round, commits: Several[Commit], scores: Scores) -> None:
        """A round was committed. Requests that failed are left out."""
        readings = []
        pairs = zip(round_.sequences, commits, round_.starts.tolist(), strict=True)
        for sequence, commit, start in pairs:
            if sequence.error is None:
                begin = len(sequence.tokens) - len(commit.tokens) - 1
                nodes = start + np.array(commit.path, dtype=np.int64)
                readings += self._reading(sequence, begin, nodes, scores)
        self._drafter.read(readings)

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        self._known.pop(request_id, None)

    def _reading(
        self, sequence: Sequence, begin: int, nodes: Ints, scores: Scores
    ) -> list[Reading]:
        """One reading of the packed `nodes` from position `begin` on; none if all were read."""
        known = self._known.get(sequence.id, 0)
        known = known if self.whole else max(known, begin)
        assert begin <= known, f"positions {known} to {begin - 1} were never scored"
        nodes, first = nodes[known - begin :], max(begin, known)
        if not len(nodes):
            return []
        self._known[sequence.id] = first + len(nodes)
        states, top = scores.states, scores.top
        return [
            Reading(
                sequence=sequence,
                first=first,
                states=None if states is None else _rows(states, nodes),
                top=top
                and Top(tokens=_rows(top.tokens, nodes), logprobs=_rows(top.logprobs, nodes)),
            )
        ]


def _rows(values: torch.Tensor, nodes: Ints) -> torch.Tensor:
    """A copy of some rows, which does not keep the whole pass in memory."""
    return values[torch.from_numpy(nodes).to(values.device)]


def may_share(readings: Readings | None) -> bool:
    """Whether prompts may begin with what the target's cache holds, and is not scored again."""
    return readings is None or not readings.whole


def readings_for(drafter: Drafter | None, target: Target) -> Readings | None:
    """For a drafter that reads the target; None for all others.

    Raises:
        InvalidOption: the target has no such layer.
    """
    wants = drafter.wants if drafter is not None else None
    if wants is None:
        return None
    wants.check(target.num_layers)
    return Readings(cast(ReadingDrafter, drafter), wants)
