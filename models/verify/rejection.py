"""`rejection`: accept a drafted token with probability min(1, p/q), else draw from the rest of p.

Exact in distribution for every q that the token was really drawn from. Source: Leviathan et al.
2023, arXiv 2211.17192, algorithm 1. Chains only. Letters: R rows, V vocabulary.
"""

import numpy as np
import torch

from models.batch import Bools, Ints
from models.draft import Draft
from models.noise import Purpose
from models.verify.round import Commit, Round, chain_probabilities, emit


def acceptance(p: torch.Tensor, q: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """min(1, p(x)/q(x)) for x = token [R]; p, q: [R, V] float32. Returns [R].

    A token that q cannot have drawn (rounding at a filter's edge) does not stand: 0.
    """
    at = token[:, None]
    drawn = q.gather(1, at)
    ratio = torch.where(drawn > 0, p.gather(1, at) / drawn, 0.0)
    return ratio[:, 0].clamp(max=1.0)


def residual(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """norm(max(0, p - q)) [R, V]: what to draw from after a rejection. Where p = q: p itself."""
    left = (p - q).clamp(min=0.0)
    total = left.sum(-1, keepdim=True)
    return torch.where(total > 0, left / total, p)


def drawn_from(draft: Draft, like: torch.Tensor) -> torch.Tensor:
    """[K, V] what a draft's tokens were drawn from; without it each is its own: one-hot."""
    if draft.probs is not None:
        return draft.probs
    hot = torch.zeros(len(draft), like.shape[-1], device=like.device)
    return hot.scatter_(1, torch.from_numpy(draft.tokens).to(like.device)[:, None], 1.0)


def draw(round_: Round, probs: torch.Tensor, owners: Ints, levels: Ints) -> list[int]:
    """[R] tokens from probs [R, V], by fresh noise of the positions `levels` [R] ahead."""
    noise = round_.noise.rows(Purpose.RESIDUAL, owners, levels)
    out: list[int] = (probs.log() + noise).argmax(-1).tolist()
    return out


def rejection(round_: Round) -> list[Commit]:
    """Judge every drafted token at once, those never reached in vain; few operations at any depth.

    Letters: T nodes and N drafted tokens of all B requests.
    """
    owners, levels = round_.nodes()
    p = chain_probabilities(round_)  # [T, V]
    sizes = np.array([len(draft) for draft in round_.drafts], dtype=np.int64)
    firsts = np.cumsum(sizes) - sizes  # [B] of each request's drafted tokens
    inner = levels < sizes[owners]  # [T] nodes with a drafted token behind them
    q = torch.cat([drawn_from(draft, p) for draft in round_.drafts])  # [N, V]
    tokens = np.concatenate([draft.tokens for draft in round_.drafts])
    chance = acceptance(p[_index(inner, p)], q, torch.from_numpy(tokens).to(p.device))
    coins = round_.noise.uniform(Purpose.ACCEPT, owners[inner], levels[inner])
    refused = coins >= chance.double().cpu().numpy()  # [N]
    counts = [
        int(refused[a : a + size].argmax()) if refused[a : a + size].any() else size
        for a, size in zip(firsts.tolist(), sizes.tolist(), strict=True)
    ]  # accepted tokens
    accepted = np.array(counts, dtype=np.int64)
    last = _last_tokens(round_, p, q, accepted, firsts, accepted < sizes)
    return [
        emit(round_, b, [*tokens[a : a + n].tolist(), token])
        for b, (a, n, token) in enumerate(zip(firsts.tolist(), counts, last, strict=True))
    ]


def _last_tokens(
    round_: Round, p: torch.Tensor, q: torch.Tensor, accepted: Ints, firsts: Ints, refused: Bools
) -> list[int]:
    """[B] the tokens after those accepted: of the residual where a guess was refused, else of p."""
    rows = p[torch.from_numpy(round_.starts + accepted).to(p.device)]  # [B, V]
    if refused.any():
        at = _index(refused, p)
        own = q[torch.from_numpy((firsts + accepted)[refused]).to(p.device)]
        rows = rows.index_copy(0, at, residual(rows[at], own))
    return draw(round_, rows, np.arange(len(accepted)), accepted)


def _index(chosen: Bools, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(chosen)).to(like.device)
