"""Filters of unlikely tokens, row by row: top-k, top-p, min-p. Letters: R rows, V vocabulary."""

import math

import torch

MINUS_INF = float("-inf")


def logarithms(p: torch.Tensor) -> torch.Tensor:
    """ln p [R], computed by Python: torch's log differs in the last bit between kinds of CPU."""
    logs = [math.log(value) if value > 0 else MINUS_INF for value in p.tolist()]
    return torch.tensor(logs, dtype=p.dtype, device=p.device)


def keep_top_k(logits: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Keep the k [R] likeliest tokens of each row (0: all); ties with the k-th stay."""
    vocab_size = logits.shape[-1]
    k = torch.where(k == 0, vocab_size, k).clamp(max=vocab_size)
    top = logits.topk(int(k.max()), dim=-1).values  # [R, max k]
    threshold = top.gather(1, (k - 1)[:, None])
    return logits.masked_fill(logits < threshold, MINUS_INF)


def keep_top_p(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Keep the likeliest tokens that together reach probability p [R] (Holtzman et al. 2020).

    The token that crosses p is kept. Tokens exactly as likely as the last kept one are kept too, so
    the result does not depend on the order of equal values in a sort.
    """
    probs = logits.softmax(-1)  # [R, V]
    for head in (128, logits.shape[-1]):  # few tokens are enough in most cases; else sort all
        top = probs.topk(min(head, logits.shape[-1]), dim=-1).values  # [R, head] descending
        before = top.cumsum(-1) - top
        if head == logits.shape[-1] or bool((before[:, -1] + top[:, -1] >= p).all()):
            break
    kept = before < p[:, None]  # [R, head], a prefix
    threshold = top.masked_fill(~kept, float("inf")).amin(-1, keepdim=True)
    return torch.where((p < 1)[:, None] & (probs < threshold), MINUS_INF, logits)


def keep_min_p(logits: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Exclude tokens less likely than p [R] times the likeliest (Nguyen 2024, arXiv 2407.01082)."""
    threshold = logits.amax(-1) + logarithms(p)  # log 0 = -inf: nothing is excluded
    return logits.masked_fill(logits < threshold[:, None], MINUS_INF)
