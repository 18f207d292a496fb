"""`block`: one joint accept decision over the drafted chain instead of one per token.

Exact in distribution; accepts at least as much as `rejection` in expectation. Source: Sun et al.
2024, arXiv 2403.10444, algorithm 2. Letters: K drafted tokens, V vocabulary.
"""

import numpy as np
import torch

from models.batch import Ints
from models.noise import Purpose
from models.verify.rejection import draft_rows, draw, residual
from models.verify.round import Commit, Round


def joint_weights(p: torch.Tensor, q: torch.Tensor, tokens: list[int]) -> list[float]:
    """[K + 1] w_i = min(1, w_{i-1} p(x_i)/q(x_i)), w_0 = 1; p: [>= K, V], q: [K, V].

    A token that q cannot have drawn (rounding at a filter's edge) does not stand: weight 0.
    """
    weights = [1.0]
    for i, token in enumerate(tokens):
        chance = float(q[i, token])
        weights.append(min(1.0, weights[-1] * float(p[i, token]) / chance) if chance else 0.0)
    return weights


def stop_chances(p: torch.Tensor, q: torch.Tensor, weights: list[float]) -> list[float]:
    """[K] h_1..h_K: the chance that a prefix of that length stands when no longer one does."""
    chances = []
    for i, weight in enumerate(weights[1:-1], 1):
        left = float((weight * p[i] - q[i]).clamp(min=0.0).sum())
        below = left + 1.0 - weight
        chances.append(left / below if below > 0 else 1.0)
    return [*chances, weights[-1]] if len(weights) > 1 else []


def num_accepted(chances: list[float], coins: list[float]) -> int:
    """The longest prefix whose coin falls under its chance; 0 if none does."""
    return max(
        (i for i, (c, h) in enumerate(zip(coins, chances, strict=True), 1) if c < h), default=0
    )


def after(p: torch.Tensor, q: torch.Tensor, weights: list[float], accepted: int) -> torch.Tensor:
    """[V] the distribution of the token after `accepted` drafted ones; p: [K + 1, V]."""
    if accepted == len(q):
        return p[accepted]
    return residual(weights[accepted] * p[None, accepted], q[None, accepted])[0]


def block(round_: Round) -> list[Commit]:
    """See the module's docstring. Chains only."""
    commits = []
    along = _along(round_)
    for b, draft in enumerate(round_.drafts):
        owner, drafted = np.array([b]), draft.tokens.tolist()
        p = torch.stack(along[b])  # [K + 1, V]
        levels = np.arange(len(drafted))
        q = torch.cat([draft_rows(round_, owner, i) for i in levels.tolist()]) if drafted else p[:0]
        weights = joint_weights(p, q, drafted)
        coins = round_.noise.uniform(Purpose.ACCEPT, np.full(len(drafted), b), levels).tolist()
        accepted = num_accepted(stop_chances(p, q, weights), coins)
        last = draw(round_, after(p, q, weights, accepted)[None], owner, np.array([accepted]))
        commits.append(_emit(round_, b, [*drafted[:accepted], *last]))
    return commits


def _along(round_: Round) -> list[list[torch.Tensor]]:
    """The target's probabilities at every node of every chain: lists of [V], one per node.

    Penalties count the drafted tokens before each node; they are forgotten again at the end.
    """
    out: list[list[torch.Tensor]] = [[] for _ in round_.drafts]
    lengths = np.array([len(d) for d in round_.drafts])
    for depth in range(int(lengths.max()) + 1):
        owners = np.flatnonzero(lengths >= depth)
        processed = round_.processor(
            round_.gather(round_.starts[owners] + depth), owners, round_.generated[owners] + depth
        )
        for b, row in zip(
            owners.tolist(), round_.processor.probabilities(processed, owners), strict=True
        ):
            out[b].append(row)
        round_.processor.observe(*_drafted(round_, lengths, depth))
    for depth in range(int(lengths.max())):
        round_.processor.retract(*_drafted(round_, lengths, depth))
    return out


def _drafted(round_: Round, lengths: Ints, depth: int) -> tuple[Ints, Ints]:
    """Owners and tokens of the drafted tokens at `depth`."""
    owners = np.flatnonzero(lengths > depth)
    tokens = [round_.drafts[b].tokens[depth] for b in owners.tolist()]
    return owners, np.array(tokens, dtype=np.int64)


def _emit(round_: Round, b: int, tokens: list[int]) -> Commit:
    """Append until the request ends."""
    commit = Commit()
    for depth, token in enumerate(tokens):
        commit.path.append(depth)
        commit.tokens.append(token)
        round_.processor.observe(np.array([b]), np.array([token]))
        if round_.sequences[b].append(token):
            break
    return commit
