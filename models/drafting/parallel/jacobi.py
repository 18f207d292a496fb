"""Jacobi decoding: the target's previous pass provides the draft tokens, without a draft model.

One pass scores a window of draft tokens. Each position that it does not decide gets a new draft
token from its distribution in this pass. The `coupling` selects how:

shared    the target's choice with the position's own noise; with `match`, the sequential output.
fresh     an independent sample: SJD (Teng et al. 2024, arXiv 2410.01699).
maximal   the previous draft token, if it can be kept: MC-SJD (So et al. 2025, arXiv 2510.24211).
gumbel    a sample with noise that belongs to the position: MC-SJD's other coupling.

The last three are for `rejection`: each draft token carries the distribution of the pass that
produced it, and is verified once, with separate random numbers.
"""

from collections.abc import Sequence as Several
from pathlib import Path

import numpy as np
import torch

from models.batch import Ints
from models.drafting.draft import Draft, Shape, chain_draft
from models.drafting.drafter import DraftContext, useful_depth
from models.drafting.parallel.coupling import choices, drawn, undecided
from models.drafting.parallel.window import Filler, Start, Window
from models.engine_config import EngineConfig
from models.errors import InvalidOption
from models.requests.sequence import Sequence
from models.targets.decoder.config import is_known, parse_config, read_configs
from models.targets.target import Target
from models.verify.round import Commit, Round

NAMES = {"shared": "jacobi", "fresh": "sjd", "maximal": "mc-sjd", "gumbel": "mc-sjd"}
NONE = Window()


class JacobiDrafter:
    """Chains from the target's previous pass; letters as in window.py."""

    max_width = 1
    passes = 0
    remote = False
    transfer_s = 0.0
    bytes_per_entry = 0
    wants = None

    def __init__(self, coupling: str, start: Filler) -> None:
        self.name = NAMES[coupling]
        self._coupling, self._start = coupling, start
        self._windows: dict[str, Window] = {}

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """Each request's window, filled up to the shape's depth by the start rule."""
        known = [self._windows.get(s.id, NONE) for s in sequences]
        vocab_size = context.processor.vocab_size
        filled = [
            self._start.fill(s, window.tokens, useful_depth(s, shape), vocab_size)
            for s, window in zip(sequences, known, strict=True)
        ]
        if not context.sampled or self._coupling == "shared":
            return [chain_draft(tokens) for tokens in filled]
        probs = _probs(known, filled, vocab_size, context.processor.device)
        return [chain_draft(t, q) for t, q in zip(filled, probs, strict=True)]

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """Choose new draft tokens for the undecided positions."""
        for sequence in round_.sequences:
            self._windows.pop(sequence.id, None)
        if self._coupling == "shared":
            for request_id, tokens in choices(round_, commits).items():
                self.carry(request_id, tokens)
            return
        left = undecided(round_, commits)
        if len(left.owners):
            tokens, probs = drawn(round_, left, self._coupling)
            for b in left.held.tolist():
                span = left.span(b)
                self._windows[round_.sequences[b].id] = Window(tokens[span], probs[span])

    def carry(self, request_id: str, tokens: Ints | None) -> None:
        """Start the request's next window with these draft tokens; None: start empty."""
        self._windows[request_id] = NONE if tokens is None else Window(tokens)

    def forget(self, request_id: str) -> None:
        """Drop the request's window."""
        self._windows.pop(request_id, None)


def build(config: EngineConfig, target: Target | None, **options: object) -> JacobiDrafter:
    """See `Build` in models/engine.py.

    Raises:
        InvalidOption: the start rule needs a grid, which the target's tokens do not form.
    """
    row_length = _row_length(config.target)
    if config.start == "above" and row_length is None:
        told = "left or uniform: the target's tokens form no grid"
        raise InvalidOption("start", config.start, told)
    how = {"jacobi": "shared", "sjd": "fresh"}.get(config.drafter, config.coupling)
    return JacobiDrafter(how, Start(rule=config.start, row_length=row_length or 1))


def _row_length(folder: str | Path) -> int | None:
    """Places in a row of an image target's grid; None: its tokens form none."""
    raw, generation = read_configs(Path(folder))
    config = parse_config(raw, generation) if is_known(raw) else None
    return None if config is None or config.grid is None else config.rotary.row_length


def _probs(
    known: list[Window], filled: list[Ints], vocab_size: int, device: torch.device
) -> tuple[torch.Tensor, ...]:
    """[K, V] for each request: carried distributions, and one-hot rows for first draft tokens."""
    sizes = [len(tokens) for tokens in filled]
    first = [t[len(w.tokens) :] for w, t in zip(known, filled, strict=True)]
    new = torch.from_numpy(np.concatenate(first)).to(device)
    hot = torch.zeros(len(new), vocab_size, device=device)
    fresh = hot.scatter_(1, new[:, None], 1.0).split([len(tokens) for tokens in first])
    parts = []
    for window, size, rows in zip(known, sizes, fresh, strict=True):
        parts += [rows] if window.probs is None else [window.probs[:size], rows]
    split: tuple[torch.Tensor, ...] = torch.cat(parts).split(sizes)
    return split
