"""`rejection`: accept a draft token with probability min(1, p/q), else sample from the residual.

Exact in distribution if the token was sampled from q. Source: Leviathan et al.
2023, arXiv 2211.17192, algorithm 1. Chains only. Letters: R rows, V vocabulary.
"""

import numpy as np
import torch

from models.batch import Bools, Ints
from models.drafting.draft import Draft
from models.sampling.noise import Purpose
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
    """norm(max(0, p - q)) [R, V]: the distribution after a rejection. Where p = q: p itself."""
    left = (p - q).clamp(min=0.0)
    total = left.sum(-1, keepdim=True)
    return torch.where(total > 0, left / total, p)


def drawn_from(draft: Draft, like: torch.Tensor) -> torch.Tensor:
    """[K, V] the distributions of a draft's tokens; one-hot if the draft has none."""
    if draft.probs is not None:
        return draft.probs
    hot = torch.zeros(len(draft), like.shape[-1], device=like.device)
    return hot.scatter_(1, torch.from_numpy(draft.tokens).to(like.device)[:, None], 1.0)


def draw(round_: Round, probs: torch.Tensor, owners: Ints, levels: Ints) -> list[int]:
    """[R] tokens sampled from probs [R, V], with new noise for the positions `levels` [R] ahead."""
    noise = round_.noise.rows(Purpose.RESIDUAL, owners, levels)
    out: list[int] = (probs.log() + noise).argmax(-1).tolist()
    return out


def rejection(round_: Round) -> list[Commit]:
    """Evaluate all draft tokens at once, also those after a rejection, to use few operations.

    Letters: T nodes and N draft tokens of all B requests.
    """
    owners, levels = round_.nodes()
    p = chain_probabilities(round_)  # [T, V]
    sizes = np.array([len(draft) for draft in round_.drafts], dtype=np.int64)
    firsts = np.cumsum(sizes) - sizes  # [B] index of each request's first draft token
    inner = levels < sizes[owners]  # [T] nodes with a draft token after them
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
    """[B] the tokens after the accepted ones: from the residual after a rejection, else from p."""
    rows = p[torch.from_numpy(round_.starts + accepted).to(p.device)]  # [B, V]
    if refused.any():
        at = _index(refused, p)
        own = q[torch.from_numpy((firsts + accepted)[refused]).to(p.device)]
        rows = rows.index_copy(0, at, residual(rows[at], own))
    return draw(round_, rows, np.arange(len(accepted)), accepted)


def _index(chosen: Bools, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(chosen)).to(like.device)
