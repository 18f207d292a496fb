"""Notes what each step did for the requests that ask for a trace."""

from collections.abc import Iterable
from collections.abc import Sequence as Several
from pathlib import Path

from models.loop.groups import Groups
from models.loop.packing import Piece
from models.loop.stopwatch import Stopwatch
from models.requests.sequence import Sequence
from models.requests.spans import Fact
from models.verify.round import Commit, Round

PREFILL = "prefill"


def note_waiting(sequence: Sequence) -> None:
    """A request waits for a row of the cache."""
    if sequence.spans is not None:
        sequence.spans.wait()


def note_admitted(sequences: Iterable[Sequence], marks: Stopwatch) -> None:
    """These have rows since the step began."""
    for sequence in sequences:
        if sequence.spans is not None:
            sequence.spans.proceed(marks.last)


def note_prefill(sequences: Several[Sequence], pieces: Several[Piece], marks: Stopwatch) -> None:
    """Pieces of prompts were read in one pass."""
    tokens = sum(len(piece) for _, piece in pieces)
    for sequence, (_, piece) in zip(sequences, pieces, strict=True):
        if sequence.spans is not None:
            facts = {"tokens": len(piece), "tokens_of_pass": tokens}
            for name, began, ended in marks.parts:
                if name == PREFILL:
                    sequence.spans.add(name, began, ended, facts)


def note_round(
    round_: Round, commits: Several[Commit], sources: Several[str], marks: Stopwatch
) -> None:
    """A round was committed; `sources`: who proposed each request's draft."""
    marks.note("other")
    for b, (sequence, commit) in enumerate(zip(round_.sequences, commits, strict=True)):
        if sequence.spans is not None:
            drafted = len(round_.drafts[b])
            facts: dict[str, Fact] = {
                "rows": len(commits),
                "draft_tokens": drafted,
                "accepted": commit.num_accepted,
                "tokens": len(commit.tokens),
            }
            _note(sequence, marks, facts | ({"drafter": Path(sources[b]).name} if drafted else {}))


def note_group_round(groups: Groups, marks: Stopwatch) -> None:
    """A group of positions was decided for each request."""
    marks.note("other")
    for canvas, plan in zip(groups.canvases, groups.plans, strict=True):
        if canvas.spans is not None:
            _note(canvas, marks, {"rows": len(groups.plans), "tokens": len(plan.positions)})


def _note(sequence: Sequence, marks: Stopwatch, facts: dict[str, Fact]) -> None:
    """The round, and the parts of it that took time of their own."""
    assert sequence.spans is not None
    parts = [part for part in marks.parts if part[0] != PREFILL]
    sequence.spans.add("round", parts[0][1], parts[-1][2], facts)
    for name, began, ended in parts:
        if name != "other":
            sequence.spans.add(name, began, ended)
