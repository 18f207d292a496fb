"""`block`: one joint accept decision over the drafted chain instead of one per token.

Exact in distribution; accepts at least as much as `rejection` in expectation. Source: Sun et al.
2024, arXiv 2403.10444, algorithm 2. Letters: K drafted tokens, V vocabulary.
"""

import numpy as np
import torch

from models.noise import Purpose
from models.verify.rejection import draft_rows, draw, residual, target_rows
from models.verify.round import Commit, Round


def joint_weights(p: torch.Tensor, q: torch.Tensor, tokens: list[int]) -> list[float]:
    """[K + 1] w_i = min(1, w_{i-1} p(x_i)/q(x_i)), w_0 = 1; p: [>= K, V], q: [K, V]."""
    weights = [1.0]
    for i, token in enumerate(tokens):
        weights.append(min(1.0, weights[-1] * float(p[i, token]) / float(q[i, token])))
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
    """See the module's docstring. Chains only; requests are judged one by one."""
    commits = []
    for b, draft in enumerate(round_.drafts):
        owner = np.array([b])
        drafted = draft.tokens.tolist()
        p = _along(round_, b)  # [K + 1, V]
        levels = np.arange(len(drafted))
        q = torch.cat([draft_rows(round_, owner, i) for i in levels]) if drafted else p[:0]
        weights = joint_weights(p, q, drafted)
        owners = np.full(len(drafted), b)
        coins = round_.noise.uniform(Purpose.ACCEPT, owners, levels).tolist()
        accepted = num_accepted(stop_chances(p, q, weights), coins)
        last = draw(round_, after(p, q, weights, accepted)[None], owner, accepted)
        commits.append(_emit(round_, b, [*drafted[:accepted], *last]))
    return commits


def _along(round_: Round, b: int) -> torch.Tensor:
    """[K + 1, V] the target's probabilities at every node, penalties counting the drafted tokens."""
    owner, rows = np.array([b]), []
    tokens = round_.drafts[b].tokens
    generated = np.array([round_.sequences[b].num_generated])
    for depth in range(len(tokens) + 1):
        logits = round_.gather(round_.starts[owner] + depth)
        processed = round_.processor(logits, owner, generated + depth)
        rows.append(round_.processor.probabilities(processed, owner))
        round_.processor.observe(owner, tokens[depth : depth + 1])
    round_.processor.retract(np.full(len(tokens), b), tokens)
    return torch.cat(rows)


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
