"""Drafts that need no drafter: what a request itself says about its next tokens.

A grammar may leave one text only; these tokens are right unless the target splits the text into
other tokens. A prediction is a text that the output is expected to resemble; the tokens are copied
from where the output's end was found in it.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass

import numpy as np

from models.drafting.draft import Draft, chain_draft
from models.drafting.prediction import Prediction
from models.requests.sequence import Sequence

GRAMMAR, PREDICTION = "grammar", "prediction"
MOST = 16  # tokens of one draft


@dataclass(frozen=True, slots=True)
class Hint:
    """A draft and where it comes from: GRAMMAR or PREDICTION."""

    draft: Draft
    source: str


class Hints:
    """The hints of a token loop's requests. Drafts have at most `room` tokens."""

    def __init__(self, room: int) -> None:
        self._room = min(room, MOST)
        self._predictions: dict[str, Prediction] = {}

    def of(self, running: Several[Sequence]) -> dict[int, Hint]:
        """By index: the hints of the requests that have one now."""
        if self._room <= 0:
            return {}
        found = ((b, self._of(s)) for b, s in enumerate(running) if s.has_hints)
        return {b: hint for b, hint in found if hint is not None}

    def _of(self, sequence: Sequence) -> Hint | None:
        most = min(self._room, sequence.num_left - 1)
        forced = [] if sequence.grammar is None else sequence.grammar.forced()[:most]
        if forced:
            return Hint(chain_draft(np.array(forced, dtype=np.int64)), GRAMMAR)
        copied = self._copied(sequence)[:most] if sequence.request.prediction else []
        if copied:
            return Hint(chain_draft(np.array(copied, dtype=np.int64)), PREDICTION)
        return None

    def _copied(self, sequence: Sequence) -> list[int]:
        known = self._predictions.get(sequence.id)
        if known is None:
            known = self._predictions[sequence.id] = Prediction(sequence.request.prediction)
        return known.next(sequence.generated)

    def observe(self, sequence: Sequence, hint: Hint, accepted: int) -> None:
        """The first `accepted` tokens of a hint stand."""
        if hint.source == PREDICTION:
            sequence.predicted += accepted
            sequence.mispredicted += len(hint.draft) - accepted
            self._predictions[sequence.id].observe(accepted, of=len(hint.draft))

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        self._predictions.pop(request_id, None)
