"""Drafts and how trees grow: connected, within their budget, each node seeing its own path."""

import numpy as np
import pytest
import torch

from models.drafting.draft import NOTHING, Draft, Shape, chain_draft, depths, visibility
from models.drafting.drafter import clip, useful_depth
from models.drafting.tree import Tree
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence


def ints(*values):
    return np.array(values, dtype=np.int64)


def ancestors(parents, node):
    """The node and those above it, by walking up."""
    out = set()
    while node >= 0:
        out.add(node)
        node = int(parents[node])
    return out


def random_parents(rng, size):
    return np.array([int(rng.integers(-1, i)) if i else -1 for i in range(size)], dtype=np.int64)


def test_a_shape_s_budget():
    assert NOTHING.budget == 0
    assert Shape(depth=4).budget == 4
    assert Shape(depth=4, width=3).budget == 12
    assert Shape(depth=4, width=3, nodes=7).budget == 7
    assert Shape(depth=4, width=3, nodes=7).fan == 1.75


def test_a_chain():
    draft = chain_draft(ints(5, 6, 7))
    assert draft.is_chain
    assert len(draft) == 3
    assert draft.parents.tolist() == [-1, 0, 1]
    assert not Draft(tokens=ints(5, 6), parents=ints(-1, -1)).is_chain


def test_depth_and_visibility_follow_the_parents():
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 5, 30):
        parents = random_parents(rng, size)
        sees = visibility(parents)
        assert sees.shape == (size + 1, size + 1)
        assert np.flatnonzero(sees[0]).tolist() == [0]
        for node, depth in enumerate(depths(parents).tolist()):
            above = ancestors(parents, node)
            assert depth == len(above)
            assert set(np.flatnonzero(sees[node + 1]).tolist()) == {0} | {i + 1 for i in above}


def test_clip_cuts_by_depth():
    draft = Draft(tokens=ints(1, 2, 3, 4, 5), parents=ints(-1, -1, 0, 1, 2), probs=torch.rand(5, 3))
    levels = depths(draft.parents)
    assert clip(draft, 3, levels) is draft
    cut = clip(draft, 2, levels)
    assert cut.tokens.tolist() == [1, 2, 3, 4]
    assert cut.parents.tolist() == [-1, -1, 0, 1]
    assert torch.equal(cut.probs, draft.probs[:4])
    assert len(clip(draft, 0, levels)) == 0


def test_no_depth_beyond_what_may_be_emitted():
    request = Request(id="a", prompt=(1,), sampling=Sampling(max_tokens=4))
    sequence = Sequence(request)
    depth = []
    while sequence.finish_reason is None:
        depth.append(useful_depth(sequence, Shape(depth=2)))
        sequence.append(3)
    assert depth == [2, 2, 1, 0]


# Trees


def grown(batch, width, levels, vocab_size, seed=0):
    """A tree over random conditional distributions, and all of them: {path: [V] log chances}."""
    generator = torch.Generator().manual_seed(seed)
    tree, tables = Tree(batch, width, levels), [{} for _ in range(batch)]
    for level in range(levels):
        nodes = width if level else 1
        chances = torch.randn(batch * nodes, vocab_size, generator=generator).log_softmax(-1)
        for b in range(batch):
            for i in range(nodes):
                path = path_of(tree, b, tree.size - nodes + i) if level else ()
                tables[b][path] = chances[b * nodes + i]
        tree.grow(chances)
    return tree, tables


def path_of(tree, b, node):
    """Tokens from the root to a node."""
    return tuple(int(tree.tokens[b, i]) for i in sorted(ancestors(tree.parents[b], node)))


@pytest.mark.parametrize(("width", "levels"), [(2, 1), (2, 4), (4, 3), (8, 3)])
def test_every_level_holds_the_likeliest_continuations(width, levels):
    tree, tables = grown(3, width, levels, 16)
    assert tree.size == width * levels
    fan = min(4, width)
    for b in range(3):
        paths, chances = [()], {(): 0.0}
        for level in range(levels):
            fans = width if level == 0 else fan
            options = {
                (*path, token): chances[path] + float(tables[b][path][token])
                for path in paths
                for token in tables[b][path].topk(fans).indices.tolist()
            }
            paths = sorted(options, key=options.get, reverse=True)[:width]
            chances |= options
            nodes = range(level * width, (level + 1) * width)
            assert {path_of(tree, b, n) for n in nodes} == set(paths)
            for n in nodes:
                assert tree.scores[b, n] == pytest.approx(chances[path_of(tree, b, n)], abs=1e-4)


def test_a_node_sees_its_own_path():
    tree, _ = grown(2, 4, 4, 16)
    for b in range(2):
        for node in range(tree.size):
            seen = set(np.flatnonzero(tree.visible[b, node]).tolist())
            assert seen == ancestors(tree.parents[b], node)


@pytest.mark.parametrize("budget", [1, 2, 5, 11, 16, 99])
def test_the_best_nodes_are_connected_and_within_the_budget(budget):
    for seed in range(5):
        tree, _ = grown(2, 4, 4, 16, seed)
        for b in range(2):
            draft, levels = best(tree, b, budget)
            assert len(draft) == min(budget, tree.size)
            assert (draft.parents < np.arange(len(draft))).all()
            assert levels.tolist() == depths(draft.parents).tolist()
            assert (np.diff(levels) >= 0).all()
            whole = {path_of(tree, b, n): tree.scores[b, n] for n in range(tree.size)}
            found = [path_of_draft(draft, n) for n in range(len(draft))]
            assert set(found) <= set(whole)
            left_out = [score for path, score in whole.items() if path not in found]
            assert min(whole[path] for path in found) >= max(left_out, default=-np.inf)


def best(tree, b, budget):
    trees = tree.best(budget)
    draft = Draft(tokens=trees.kept_tokens[b], parents=trees.kept_parents[b])
    return draft, trees.kept_levels[b]


def path_of_draft(draft, node):
    return tuple(int(draft.tokens[i]) for i in sorted(ancestors(draft.parents, node)))


def test_certain_continuations_keep_their_parents():
    """A child as likely as its parent (chance 1) never takes the parent's place."""
    certain = torch.full((1, 6), -torch.inf)
    certain[0, 2] = 0.0
    tree = Tree(1, 2, 4)
    for level in range(4):
        tree.grow(certain.expand(2 if level else 1, -1))
    for budget in range(1, 9):
        draft, levels = best(tree, 0, budget)
        assert levels.tolist() == depths(draft.parents).tolist()
    draft, _ = best(tree, 0, 4)
    assert path_of_draft(draft, 3) == (2, 2, 2, 2)
