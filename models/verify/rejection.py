"""`rejection`: accept a drafted token with probability min(1, p/q), else draw from the rest of p.

Exact in distribution for every q that the token was really drawn from. Source: Leviathan et al.
2023, arXiv 2211.17192, algorithm 1. Chains only. Letters: R rows, V vocabulary.
"""

import numpy as np
import torch

from models.batch import Ints
from models.noise import Purpose
from models.verify.round import Commit, Round


def acceptance(p: torch.Tensor, q: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """min(1, p(x)/q(x)) for x = token [R]; p, q: [R, V] float32. Returns [R]."""
    at = token[:, None]
    return (p.gather(1, at) / q.gather(1, at))[:, 0].clamp(max=1.0)


def residual(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """norm(max(0, p - q)) [R, V]: what to draw from after a rejection. Where p = q: p itself."""
    left = (p - q).clamp(min=0.0)
    total = left.sum(-1, keepdim=True)
    return torch.where(total > 0, left / total, p)


def draft_rows(round_: Round, owners: Ints, depth: int) -> torch.Tensor:
    """[R, V] the distribution that each request's drafted token at `depth` was drawn from.

    A guess without probabilities is its own: one-hot.
    """
    rows = []
    for b in owners.tolist():
        draft = round_.drafts[b]
        if draft.probs is not None:
            rows.append(draft.probs[depth])
        else:
            hot = torch.zeros(round_.logits.shape[-1], device=round_.logits.device)
            hot[int(draft.tokens[depth])] = 1.0
            rows.append(hot)
    return torch.stack(rows)


def draw(round_: Round, probs: torch.Tensor, owners: Ints, depth: int) -> list[int]:
    """[R] tokens from probs [R, V], by fresh noise."""
    noise = round_.noise.rows(Purpose.RESIDUAL, owners, np.full(len(owners), depth))
    out: list[int] = (probs.log() + noise).argmax(-1).tolist()
    return out


def target_rows(round_: Round, owners: Ints, depth: int) -> torch.Tensor:
    """[R, V] the target's processed probabilities after `depth` drafted tokens of a chain."""
    logits = round_.gather(round_.starts[owners] + depth)
    processed = round_.processor(logits, owners, round_.generated[owners])
    return round_.processor.probabilities(processed, owners)


def rejection(round_: Round) -> list[Commit]:
    """Walk the chains side by side; see the module's docstring."""
    commits = [Commit() for _ in round_.sequences]
    active = np.arange(len(commits))
    depth = 0
    while len(active):
        probs = target_rows(round_, active, depth)  # [R, V]; num_generated has grown by depth
        drafted = np.array([depth < len(round_.drafts[b]) for b in active.tolist()])
        ended = active[~drafted]
        if len(ended):  # all accepted: one more from p
            bonus = draw(round_, probs[torch.from_numpy(~drafted)], ended, depth)
            _emit(round_, commits, ended, bonus, depth)
        active = active[drafted]
        if len(active):
            active = _judge(round_, commits, active, probs[torch.from_numpy(drafted)], depth)
        depth += 1
    return commits


def _judge(round_: Round, commits: list[Commit], owners: Ints, p: torch.Tensor, depth: int) -> Ints:
    """Accept or replace the token at `depth` of each owner; returns those who go on."""
    q = draft_rows(round_, owners, depth)  # [R, V]
    drafted = np.array([round_.drafts[b].tokens[depth] for b in owners.tolist()])
    chance = acceptance(p, q, torch.from_numpy(drafted).to(p.device))
    coin = round_.noise.uniform(Purpose.ACCEPT, owners, np.full(len(owners), depth))
    accepted = coin < chance.double().cpu().numpy()
    going = _emit(round_, commits, owners[accepted], drafted[accepted].tolist(), depth)
    lost = np.flatnonzero(~accepted)
    if len(lost):
        at = torch.from_numpy(lost).to(p.device)
        recovered = draw(round_, residual(p[at], q[at]), owners[lost], depth)
        _emit(round_, commits, owners[lost], recovered, depth)
    return going


def _emit(
    round_: Round, commits: list[Commit], owners: Ints, tokens: list[int], depth: int
) -> Ints:
    """Append tokens [R] to their requests; returns the owners whose requests have not ended."""
    round_.processor.observe(owners, np.array(tokens, dtype=np.int64))
    going = []
    for b, token in zip(owners.tolist(), tokens, strict=True):
        commits[b].path.append(depth)
        commits[b].tokens.append(token)
        if not round_.sequences[b].append(token):
            going.append(b)
    return np.array(going, dtype=np.int64)
