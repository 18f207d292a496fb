"""`block`: one joint accept decision for a draft chain, instead of one for each token.

Exact in distribution; accepts at least as many tokens as `rejection` on average. Source: Sun et al.
2024, arXiv 2403.10444, algorithm 2. Letters: K drafted tokens, V vocabulary.
"""

import numpy as np
import torch

from models.sampling.noise import Purpose
from models.verify.rejection import draw, drawn_from, residual
from models.verify.round import Commit, Round, chain_probabilities, emit


def joint_weights(p: torch.Tensor, q: torch.Tensor, tokens: list[int]) -> list[float]:
    """[K + 1] w_i = min(1, w_{i-1} p(x_i)/q(x_i)), w_0 = 1; p: [>= K, V], q: [K, V].

    A token with q = 0 (rounding at the edge of a filter) has the weight 0 and is rejected.
    """
    weights = [1.0]
    for i, token in enumerate(tokens):
        chance = float(q[i, token])
        weights.append(min(1.0, weights[-1] * float(p[i, token]) / chance) if chance else 0.0)
    return weights


def stop_chances(p: torch.Tensor, q: torch.Tensor, weights: list[float]) -> list[float]:
    """[K] h_1..h_K: the probability to accept a prefix of this length if no longer one is."""
    chances = []
    for i, weight in enumerate(weights[1:-1], 1):
        left = float((weight * p[i] - q[i]).clamp(min=0.0).sum())
        below = left + 1.0 - weight
        chances.append(left / below if below > 0 else 1.0)
    return [*chances, weights[-1]] if len(weights) > 1 else []


def num_accepted(chances: list[float], coins: list[float]) -> int:
    """The longest prefix whose random number is below its probability; 0 if none is."""
    return max(
        (i for i, (c, h) in enumerate(zip(coins, chances, strict=True), 1) if c < h), default=0
    )


def after(p: torch.Tensor, q: torch.Tensor, weights: list[float], accepted: int) -> torch.Tensor:
    """[V] the distribution of the token after `accepted` draft tokens; p: [K + 1, V]."""
    if accepted == len(q):
        return p[accepted]
    return residual(weights[accepted] * p[None, accepted], q[None, accepted])[0]


def block(round_: Round) -> list[Commit]:
    """See the module's docstring. Chains only."""
    commits = []
    along = chain_probabilities(round_)  # [T, V]
    for b, (draft, start) in enumerate(zip(round_.drafts, round_.starts.tolist(), strict=True)):
        drafted = draft.tokens.tolist()
        p, q = along[start : start + len(draft) + 1], drawn_from(draft, along)  # [K + 1, V], [K, V]
        weights = joint_weights(p, q, drafted)
        owners, levels = np.full(len(drafted), b), np.arange(len(drafted))
        coins = round_.noise.uniform(Purpose.ACCEPT, owners, levels).tolist()
        accepted = num_accepted(stop_chances(p, q, weights), coins)
        rest = after(p, q, weights, accepted)[None]
        last = draw(round_, rest, np.array([b]), np.array([accepted]))
        commits.append(emit(round_, b, [*drafted[:accepted], *last]))
    return commits
