"""Grows chains and trees level by level, for drafters that score what they have drafted so far.

Letters: B sequences, K levels, W nodes a level, R rows, V vocabulary.
"""

from collections.abc import Callable
from collections.abc import Sequence as Several

import numpy as np
import torch

from models.batch import Ints
from models.drafting.drafter import DraftContext
from models.drafting.sharpness import Sharpness
from models.drafting.tree import Tree, favour
from models.requests.sequence import Sequence
from models.sampling.noise import Purpose

# Tokens [B] of a level and the number of levels before it -> logits [B, V] of the next one.
Feed = Callable[[Ints, int], torch.Tensor]
# A tree whose last level is new -> logits [B * W, V] after that level's nodes.
FeedLevel = Callable[[Tree], torch.Tensor]
PLAIN = Sharpness()


def num_generated(sequences: Several[Sequence]) -> Ints:
    """[B] tokens that each sequence has generated."""
    return np.array([s.num_generated for s in sequences], dtype=np.int64)


def grow_chain(
    logits: torch.Tensor, depth: int, generated: Ints, context: DraftContext, feed: Feed
) -> tuple[Ints, torch.Tensor | None]:
    """Chains [B, K], and, if the rule needs them, the distributions of the tokens [B, K, V].

    Args:
        logits: [B, V] of the first level.
        depth: K.
        generated: [B] see `num_generated`.
    """
    processor, owners = context.processor, context.owners
    tokens = np.zeros((len(owners), depth), dtype=np.int64)
    probs: list[torch.Tensor] = []
    for level in range(depth):
        paths = tokens[:, :level].tolist() if processor.has_grammars else None
        processed = processor(logits, owners, generated + level, paths=paths)  # [B, V]
        if context.sampled:
            probs.append(processor.probabilities(processed, owners))
        levels, purpose = np.full(len(owners), level), context.purpose
        tokens[:, level] = context.noise.choose(processor, processed, purpose, owners, levels)
        processor.observe(owners, tokens[:, level])
        if level + 1 < depth:
            logits = feed(tokens[:, level], level)
    for level in range(depth):
        processor.retract(owners, tokens[:, level])
    return tokens, torch.stack(probs, dim=1) if probs else None


def grow_tree(
    logits: torch.Tensor,
    width: int,
    depth: int,
    generated: Ints,
    context: DraftContext,
    feed: FeedLevel,
    sharpness: Sharpness = PLAIN,
) -> Tree:
    """Trees of W nodes a level: of all continuations of a level, the likeliest are kept.

    Arguments as in `grow_chain`. `sharpness`: how far values are trusted.
    """
    batch = len(context.owners)
    tree, noise = Tree(batch, width, depth), _noise(context, depth)
    for level in range(depth):
        rows = len(logits) // batch  # of a sequence: 1 at the root
        owners = np.repeat(context.owners, rows)
        paths = tree.paths() if context.processor.has_grammars else None
        counts = np.repeat(generated, rows) + level
        values = context.processor(logits, owners, counts, paths=paths)
        own = _own_choices(context, values, owners, level)
        added = noise[level]
        if added is not None:
            values = (values.view(batch, rows, -1) + added[:, None]).flatten(0, 1)
        chances = (sharpness[level] * values).log_softmax(-1)
        tree.grow(chances if own is None else favour(chances, *own))
        if level + 1 < depth:
            logits = feed(tree)
    return tree


def _noise(context: DraftContext, depth: int) -> Several[torch.Tensor] | Several[None]:
    """Gumbel noise by level, [B, V]; 0 for requests without. None by level if all are without."""
    processor, owners = context.processor, context.owners
    noisy = processor.noisy[owners]  # [B]
    if not noisy.any():
        return [None] * depth
    levels = np.tile(np.arange(depth), len(owners))
    rows = context.noise.rows(Purpose.TOKEN, np.repeat(owners, depth), levels)
    rows = rows.view(len(owners), depth, -1)  # [B, K, V]
    if not noisy.all():
        still = torch.from_numpy(~noisy).to(rows.device)  # [B]
        rows = rows.masked_fill(still[:, None, None], 0.0)
    return rows.unbind(1)


def _own_choices(
    context: DraftContext, values: torch.Tensor, owners: Ints, level: int
) -> tuple[Ints, Ints] | None:
    """Rows of requests with another map than Gumbel noise, and what the draft model chooses there.

    `values` [R, V] belong to the requests `owners` [R]. None if there is no such row.
    """
    processor = context.processor
    if not processor.mapped:
        return None
    at = np.flatnonzero(np.logical_or.reduce(list(processor.mapped.values()))[owners])
    if not len(at):
        return None
    levels, chosen = np.full(len(at), level), values[torch.from_numpy(at).to(values.device)]
    return at, context.noise.choose(processor, chosen, Purpose.TOKEN, owners[at], levels)
