"""`match`: accepts draft tokens that equal the target's own token at their position.

The target's token is argmax(log p + gumbel(seed, position)), so the output is a function of the
target and the seed, whatever the draft. Source: shared-noise coupling, Daliri et al. 2024
(arXiv 2408.07978), applied to trees. At temperature 0 it is greedy verification (Stern et al.
2018, arXiv 1811.03115).
"""

import numpy as np

from models.batch import Ints
from models.sampling.noise import Purpose
from models.verify.round import Commit, Round, children


def match(round_: Round) -> list[Commit]:
    """From the root on: compute the target's token; go to the child with this token, or stop."""
    if round_.processor.elementwise:
        return _walk_known(round_, _tokens_everywhere(round_))
    return _walk(round_)


def _tokens_everywhere(round_: Round) -> list[int]:
    """The target's token at every packed node, [T]."""
    owners, levels = round_.nodes()
    processed = round_.processor(round_.logits, owners, levels)  # [T, V]
    tokens = round_.noise.choose(round_.processor, processed, Purpose.TOKEN, owners, levels)
    out: list[int] = tokens.tolist()
    return out


def _walk_known(round_: Round, tokens: list[int]) -> list[Commit]:
    commits = []
    for sequence, draft, start in zip(
        round_.sequences, round_.drafts, round_.starts.tolist(), strict=True
    ):
        commit, known, node = Commit(), children(draft), 0
        while True:
            token = tokens[start + node]
            commit.path.append(node)
            commit.tokens.append(token)
            child = known.get((node, token))
            if sequence.append(token) or child is None:
                break
            node = child
        commits.append(commit)
    return commits


def _walk(round_: Round) -> list[Commit]:
    """Depth by depth over the batch, because a position's distribution depends on the path."""
    commits = [Commit() for _ in round_.sequences]
    known = [children(draft) for draft in round_.drafts]
    generated = round_.generated
    active = np.arange(len(commits))
    nodes = np.zeros(len(commits), dtype=np.int64)  # [B] the current node of each request
    depth = 0
    while len(active):
        tokens = _choose(round_, active, nodes[active], generated[active] + depth, depth)
        round_.processor.observe(active, np.array(tokens))
        going = []
        for b, token in zip(active.tolist(), tokens, strict=True):
            node = int(nodes[b])
            commits[b].path.append(node)
            commits[b].tokens.append(token)
            child = known[b].get((node, token))
            if not round_.sequences[b].append(token) and child is not None:
                nodes[b] = child
                going.append(b)
        active, depth = np.array(going, dtype=np.int64), depth + 1
    return commits


def _choose(round_: Round, active: Ints, nodes: Ints, generated: Ints, depth: int) -> list[int]:
    """The target's tokens at one node of each active request."""
    logits = round_.gather(round_.starts[active] + nodes)  # [R, V]
    processed = round_.processor(logits, active, generated)
    levels = np.full(len(active), depth)
    tokens = round_.noise.choose(round_.processor, processed, Purpose.TOKEN, active, levels)
    out: list[int] = tokens.tolist()
    return out
