"""`rejection`: accept a drafted token with probability min(1, p/q), else draw from the rest of p.

Exact in distribution for every q that the token was really drawn from. Source: Leviathan et al.
2023, arXiv 2211.17192, algorithm 1. Chains only. Letters: R rows, V vocabulary.
"""

import numpy as np
import torch

from models.batch import Bools, Ints
from models.draft import Draft
from models.noise import Purpose
from models.verify.round import Commit, Round

AT_ONCE = 2**19  # logits of a round above which it is not worth judging what is never reached


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


def draw(round_: Round, probs: torch.Tensor, owners: Ints, levels: Ints) -> list[int]:
    """[R] tokens from probs [R, V], by fresh noise of the positions `levels` [R] ahead."""
    noise = round_.noise.rows(Purpose.RESIDUAL, owners, levels)
    out: list[int] = (probs.log() + noise).argmax(-1).tolist()
    return out


def target_rows(round_: Round, owners: Ints, depth: int) -> torch.Tensor:
    """[R, V] the target's processed probabilities after `depth` drafted tokens of a chain."""
    logits = round_.gather(round_.starts[owners] + depth)
    processed = round_.processor(logits, owners, round_.generated[owners])
    return round_.processor.probabilities(processed, owners)


def rejection(round_: Round) -> list[Commit]:
    """See the module's docstring. Chains only."""
    if not round_.processor.counts_tokens and round_.logits.numel() <= AT_ONCE:
        return _judge_all(round_)
    return _walk(round_)


def _judge_all(round_: Round) -> list[Commit]:
    """Every drafted token at once, the unreached ones in vain: few operations, whatever the depth.

    Letters: N drafted tokens of all B requests.
    """
    owners, levels = round_.nodes()
    processed = round_.processor(round_.logits, owners, round_.generated[owners] + levels)
    p = round_.processor.probabilities(processed, owners)  # [T, V]
    sizes = np.array([len(draft) for draft in round_.drafts], dtype=np.int64)
    firsts = np.cumsum(sizes) - sizes  # [B] of each request's drafted tokens
    inner = levels < sizes[owners]  # [T] nodes with a drafted token behind them
    q = all_draft_rows(round_)  # [N, V]
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
        _append(round_, b, [*tokens[a : a + n].tolist(), token])
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


def all_draft_rows(round_: Round) -> torch.Tensor:
    """[N, V] the distributions that all drafted tokens were drawn from; one-hot where untold."""
    return torch.cat([drawn_from(draft, round_.logits) for draft in round_.drafts])


def drawn_from(draft: Draft, like: torch.Tensor) -> torch.Tensor:
    """[K, V] what a draft's tokens were drawn from; without it each is its own."""
    if draft.probs is not None:
        return draft.probs
    hot = torch.zeros(len(draft), like.shape[-1], device=like.device)
    return hot.scatter_(1, torch.from_numpy(draft.tokens).to(like.device)[:, None], 1.0)


def _append(round_: Round, b: int, tokens: list[int]) -> Commit:
    """Append tokens until the request ends."""
    commit = Commit()
    for depth, token in enumerate(tokens):
        commit.path.append(depth)
        commit.tokens.append(token)
        if round_.sequences[b].append(token):
            break
    return commit


def _walk(round_: Round) -> list[Commit]:
    """Side by side, token by token: what was decided shapes the next distribution."""
    commits = [Commit() for _ in round_.sequences]
    active = np.arange(len(commits))
    depth = 0
    while len(active):
        probs = target_rows(round_, active, depth)  # [R, V]; num_generated has grown by depth
        drafted = np.array([depth < len(round_.drafts[b]) for b in active.tolist()])
        ended = active[~drafted]
        if len(ended):  # all accepted: one more from p
            levels = np.full(len(ended), depth)
            bonus = draw(round_, probs[torch.from_numpy(~drafted)], ended, levels)
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
        levels = np.full(len(lost), depth)
        recovered = draw(round_, residual(p[at], q[at]), owners[lost], levels)
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
