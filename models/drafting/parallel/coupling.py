"""New draft tokens for the undecided positions of a round, from the distributions of its pass.

Handles all requests at once. Letters: R undecided positions of all requests, V vocabulary.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass

import numpy as np
import torch

from models.batch import Ints
from models.sampling.noise import Purpose
from models.verify.rejection import acceptance, drawn_from, residual
from models.verify.round import Commit, Round, path_counts

COUPLINGS = ("shared", "fresh", "maximal", "gumbel")


@dataclass(frozen=True, slots=True)
class Undecided:
    """The nodes of the round's chains whose next position was not decided: [R] each, by request.

    The previous draft token of that position, if any, has the same index in the draft as the node.
    """

    owners: Ints
    nodes: Ints
    bounds: Ints  # [B + 1]: rows bounds[b] : bounds[b + 1] are request b's

    def span(self, b: int) -> slice:
        """The rows of request b."""
        return slice(int(self.bounds[b]), int(self.bounds[b + 1]))

    @property
    def held(self) -> Ints:
        """The requests with undecided positions."""
        return np.flatnonzero(np.diff(self.bounds))


def undecided(round_: Round, commits: Several[Commit]) -> Undecided:
    """The undecided nodes of the chains of requests that have not ended."""
    counts = [
        len(draft) + 1 - len(commit.tokens) if len(draft) and sequence.finish_reason is None else 0
        for sequence, draft, commit in zip(round_.sequences, round_.drafts, commits, strict=True)
    ]
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    first = np.array([len(c.tokens) for c in commits], dtype=np.int64)  # with the root's token
    owners = np.repeat(np.arange(len(counts)), counts)
    return Undecided(owners, first[owners] + np.arange(bounds[-1]) - bounds[owners], bounds)


def processed(round_: Round, left: Undecided) -> torch.Tensor:
    """[R, V] processed logits, given the decided tokens and the draft tokens before each node."""
    logits = round_.gather(round_.starts[left.owners] + left.nodes)
    ahead = np.arange(len(left.owners)) - left.bounds[left.owners]  # [R] undecided nodes before
    generated = round_.generated[left.owners] + ahead
    path = _counts(round_, left) if round_.processor.counts_tokens else None
    return round_.processor(logits, left.owners, generated, path)


def _counts(round_: Round, left: Undecided) -> torch.Tensor:
    """[R, V] token counts between the first undecided node (excluded) and each node."""
    rows = path_counts(round_)[torch.from_numpy(round_.starts[left.owners] + left.nodes)]
    return rows - rows[torch.from_numpy(left.bounds[left.owners])]


def shared(round_: Round, left: Undecided) -> Ints:
    """[R] the target's choices, with the noise that will decide these positions."""
    values, where = processed(round_, left), (left.owners, left.nodes)
    return round_.noise.choose(round_.processor, values, Purpose.TOKEN, *where)


def choices(round_: Round, commits: Several[Commit]) -> dict[str, Ints]:
    """By request: the target's choices for the undecided positions."""
    left = undecided(round_, commits)
    if not len(left.owners):
        return {}
    tokens = shared(round_, left)
    return {round_.sequences[b].id: tokens[left.span(b)] for b in left.held.tolist()}


def drawn(round_: Round, left: Undecided, coupling: str) -> tuple[Ints, torch.Tensor]:
    """[R] tokens, and the probabilities [R, V] that they were sampled from.

    Their random numbers are independent of those that will verify them, which are keyed by the
    start of a later round.
    """
    probs = round_.processor.probabilities(processed(round_, left), left.owners)
    purpose = Purpose.POSITION if coupling == "gumbel" else Purpose.DRAFT
    noise = round_.noise.rows(purpose, left.owners, left.nodes)
    if coupling == "maximal":
        return _kept_or_drawn(round_, left, probs, noise), probs
    return _argmax(probs, noise), probs


def _argmax(probs: torch.Tensor, noise: torch.Tensor) -> Ints:
    tokens: Ints = (probs.log() + noise).argmax(-1).cpu().numpy()
    return tokens


def _kept_or_drawn(
    round_: Round, left: Undecided, probs: torch.Tensor, noise: torch.Tensor
) -> Ints:
    """[R] maximal coupling: the previous draft tokens where they are kept, else new ones.

    The last node of a chain has no previous draft token.
    """
    first, held = left.nodes[left.bounds[:-1][left.held]], left.held.tolist()
    olds = [(round_.drafts[b], n) for b, n in zip(held, first.tolist(), strict=True)]
    sizes = np.array([len(d) for d in round_.drafts], dtype=np.int64)
    had = left.nodes < sizes[left.owners]  # [R]
    tokens = np.zeros(len(had), dtype=np.int64)
    tokens[had] = np.concatenate([draft.tokens[n:] for draft, n in olds])
    at = torch.from_numpy(np.flatnonzero(had)).to(probs.device)
    p, q = probs[at], torch.cat([drawn_from(draft, probs)[n:] for draft, n in olds])
    stays = np.zeros(len(had), dtype=np.bool_)
    coin = round_.noise.uniform(Purpose.COUPLE, left.owners[had], left.nodes[had])
    chance = acceptance(p, q, torch.from_numpy(tokens[had]).to(probs.device))
    stays[had] = coin < chance.double().cpu().numpy()
    source = probs.index_copy(0, at, residual(p, q))
    return np.where(stays, tokens, _argmax(source, noise))
