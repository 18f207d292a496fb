"""The new tokens of streaming requests, step by step.

Requests say whether they stream. Where none does, a step costs one look at an empty set.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Several

import numpy as np

from models.batch import Ints
from models.drafting.draft import Draft
from models.loop.groups import Groups
from models.requests.request import Request, TokenLogprob
from models.requests.sequence import Sequence
from models.requests.update import TARGET, Update
from models.verify.round import Commit, Round


class Updates:
    """Which requests stream, and what they have gained since it was taken."""

    def __init__(self) -> None:
        self._streaming: set[str] = set()
        self._untaken: list[Update] = []

    def begin(self, request: Request) -> None:
        """The request was submitted."""
        if request.stream:
            self._streaming.add(request.id)

    def end(self, request_id: str) -> None:
        """The request has ended; what it has gained can still be taken."""
        self._streaming.discard(request_id)

    def drop(self, request_id: str) -> None:
        """The request was cancelled: nothing of it is reported."""
        self._untaken = [update for update in self._untaken if update.id != request_id]

    def take(self) -> list[Update]:
        """The updates since the last call."""
        updates, self._untaken = self._untaken, []
        return updates

    def note_round(self, round_: Round, commits: Several[Commit], sources: Several[str]) -> None:
        """A round was committed; `sources`: who proposed each request's accepted tokens."""
        if self._streaming:
            self._untaken += _of_round(round_, commits, sources)

    def note_groups(self, groups: Groups, tokens: Several[Ints]) -> None:
        """A group of positions was decided for each request."""
        if self._streaming:
            self._untaken += _of_groups(groups, tokens)


def _of_round(round_: Round, commits: Several[Commit], sources: Several[str]) -> Iterator[Update]:
    parts = zip(round_.sequences, round_.drafts, commits, sources, strict=True)
    for sequence, draft, commit, source in parts:
        if sequence.request.stream and sequence.error is None:
            count, end = len(commit.tokens), sequence.num_generated
            yield Update(
                id=sequence.id,
                positions=range(end - count, end),
                tokens=tuple(commit.tokens),
                sources=(source,) * commit.num_accepted + (TARGET,),
                text=sequence.take_text(),
                rejected=rejected(draft, commit) if len(draft) else (),
                logprobs=_asked(sequence, sequence.logprobs[-count:]),
            )


def rejected(draft: Draft, commit: Commit) -> tuple[int, ...]:
    """The draft's guesses of the last token that were wrong."""
    at = np.flatnonzero(draft.parents + 1 == commit.path[-1])
    return tuple(token for token in draft.tokens[at].tolist() if token != commit.tokens[-1])


def _of_groups(groups: Groups, tokens: Several[Ints]) -> Iterator[Update]:
    for canvas, plan, values in zip(groups.canvases, groups.plans, tokens, strict=True):
        streams = canvas.request.stream and canvas.error is None
        if streams and not canvas.was_given(plan.positions):
            places = plan.positions.tolist()
            yield Update(
                id=canvas.id,
                positions=tuple(places),
                tokens=tuple(values.tolist()),
                sources=(TARGET,) * len(places),
                logprobs=_asked(canvas, canvas.logprobs_at(places)),
            )


def _asked(sequence: Sequence, found: Several[TokenLogprob]) -> tuple[TokenLogprob, ...] | None:
    return None if sequence.request.sampling.logprobs is None else tuple(found)
