"""`rejection` and `block` are exact: every drafted chain and every outcome summed, no sampling.

A chain is drawn from q, the rule's pure functions say with which chance each prefix stands and what
follows it, and what the rounds leave open is filled up from p: the joint law must be p's own. The
sums run in float64. Letters: V vocabulary, K drafted tokens.
"""

from itertools import product

import numpy as np
import pytest
import torch

from models.verify.block import after, joint_weights, num_accepted, stop_chances
from models.verify.rejection import acceptance, residual

SIZES = [(2, 1), (3, 2), (4, 2), (4, 3)]


class Tree:
    """Conditional distributions of a little language: one row [V] per history."""

    def __init__(self, vocab_size, depth, seed=0, *, row=None):
        generator = torch.Generator().manual_seed(seed)
        self.vocab_size = vocab_size
        make = row or (lambda: torch.randn(vocab_size, generator=generator, dtype=torch.float64))
        self.rows = {
            history: make().softmax(0)
            for length in range(depth + 1)
            for history in product(range(vocab_size), repeat=length)
        }

    def along(self, chain):
        """[K + 1, V] the rows before each token of the chain and after the last."""
        return torch.stack([self.rows[chain[:i]] for i in range(len(chain) + 1)])

    def chance(self, chain, begin=0):
        """Of the chain's tokens from `begin` on, given those before."""
        return float(
            np.prod([self.rows[chain[:i]][chain[i]] for i in range(begin, len(chain))] or [1.0])
        )


def rejection_outcomes(p, q, chain):
    """(number accepted, its chance, distribution of the next token) of one drafted chain."""
    chance = 1.0
    for i, token in enumerate(chain):
        accept = float(acceptance(p[i : i + 1], q[i : i + 1], torch.tensor([token])))
        yield i, chance * (1 - accept), residual(p[i : i + 1], q[i : i + 1])[0]
        chance *= accept
    yield len(chain), chance, p[len(chain)]


def block_outcomes(p, q, chain):
    """The same, by the joint decision: the longest prefix whose coin falls under its chance."""
    weights = joint_weights(p, q, list(chain))
    chances = stop_chances(p, q, weights)
    longer_fail = 1.0
    for accepted in range(len(chain), -1, -1):
        stands = chances[accepted - 1] if accepted else 1.0
        yield accepted, longer_fail * stands, after(p, q, weights, accepted)
        longer_fail *= 1 - stands


RULES = {"rejection": rejection_outcomes, "block": block_outcomes}


def joint_law(p_tree, q_tree, depth, outcomes):
    """Probability of every sequence of depth + 1 tokens, and the expected number accepted."""
    law, expected = {}, 0.0
    vocabulary = range(p_tree.vocab_size)
    for chain in product(vocabulary, repeat=depth):
        drawn = q_tree.chance(chain)
        if drawn == 0:
            continue
        p, q = p_tree.along(chain), q_tree.along(chain)[:depth]
        for accepted, chance, following in outcomes(p, q, chain):
            expected += drawn * chance * accepted
            for token in vocabulary:
                head = (*chain[:accepted], token)
                weight = drawn * chance * float(following[token])
                if weight == 0:
                    continue
                for tail in product(vocabulary, repeat=depth - accepted):
                    whole = head + tail
                    law[whole] = law.get(whole, 0.0) + weight * p_tree.chance(whole, len(head))
    return law, expected


def distance(law, p_tree, depth):
    """The largest difference to the target's own joint law."""
    whole = product(range(p_tree.vocab_size), repeat=depth + 1)
    return max(abs(law.get(s, 0.0) - p_tree.chance(s)) for s in whole)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("vocab_size", "depth"), SIZES)
@pytest.mark.parametrize("seed", [1, 2])
def test_joint_law_is_the_targets(rule, vocab_size, depth, seed):
    p, q = Tree(vocab_size, depth, seed), Tree(vocab_size, depth, seed + 100)
    law, _ = joint_law(p, q, depth, RULES[rule])
    assert distance(law, p, depth) < 1e-9


def fixed(*values):
    return lambda: torch.tensor(values, dtype=torch.float64).log()


ADVERSARIES = {
    "uniform": fixed(0.25, 0.25, 0.25, 0.25),
    "one-hot": fixed(0.0, 0.0, 1.0, 0.0),
    "without two tokens": fixed(0.5, 0.0, 0.5, 0.0),
    "nearly one-hot": fixed(1e-12, 1e-12, 1 - 3e-12, 1e-12),
}
TARGETS = {
    "random": None,
    "excluded tokens": fixed(0.6, 0.0, 0.0, 0.4),
    "greedy": fixed(0.0, 1.0, 0.0, 0.0),
    "excludes what is drafted": fixed(0.5, 0.5, 0.0, 0.0),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_an_adversary_changes_the_speed_alone(rule, target, adversary):
    p, q = Tree(4, 2, 5, row=TARGETS[target]), Tree(4, 2, row=ADVERSARIES[adversary])
    law, _ = joint_law(p, q, 2, RULES[rule])
    assert distance(law, p, 2) < 1e-9


@pytest.mark.parametrize("rule", RULES)
def test_a_drafter_that_is_the_target_is_always_right(rule):
    p = Tree(3, 3, 4)
    law, expected = joint_law(p, p, 3, RULES[rule])
    assert distance(law, p, 3) < 1e-9
    assert expected == pytest.approx(3)


# Controls: the same sums must notice a rule that is wrong.


def without_residual(p, q, chain):
    for accepted, chance, _ in rejection_outcomes(p, q, chain):
        yield accepted, chance, p[accepted]


def residual_unweighted(p, q, chain):
    for accepted, chance, following in block_outcomes(p, q, chain):
        whole = accepted == len(chain)
        yield (
            accepted,
            chance,
            following if whole else residual(p[None, accepted], q[None, accepted])[0],
        )


def bonus_from_q(p, q, chain):
    for accepted, chance, following in rejection_outcomes(p, q, chain):
        yield accepted, chance, q[-1] if accepted == len(chain) else following


def weights_as_chances(p, q, chain):
    """Accept a prefix with its joint weight alone."""
    weights, longer_fail = joint_weights(p, q, list(chain)), 1.0
    for accepted in range(len(chain), -1, -1):
        yield accepted, longer_fail * weights[accepted], after(p, q, weights, accepted)
        longer_fail *= 1 - weights[accepted]


CONTROLS = [without_residual, residual_unweighted, bonus_from_q, weights_as_chances]


@pytest.mark.parametrize("control", CONTROLS)
def test_a_biased_control_is_caught(control):
    p, q = Tree(3, 2, 1), Tree(3, 2, 101)
    law, _ = joint_law(p, q, 2, control)
    assert distance(law, p, 2) > 1e-3


def test_a_draft_that_lies_about_q_is_caught():
    """Tokens drawn from one distribution, another handed in as q."""
    p, q, told = Tree(3, 2, 1), Tree(3, 2, 101), Tree(3, 2, 202)

    def outcomes(p_rows, _, chain):
        return rejection_outcomes(p_rows, told.along(chain)[:2], chain)

    law, _ = joint_law(p, q, 2, outcomes)
    assert distance(law, p, 2) > 1e-3


def one_hot_rows(chain, vocab_size):
    return torch.eye(vocab_size, dtype=torch.float64)[list(chain)]


@pytest.mark.parametrize("rule", RULES)
def test_any_guess_told_as_one_hot_is_exact(rule):
    """Also one that was drawn from some q: it is accepted less often, never with another law."""
    p, q = Tree(4, 2, 8), Tree(4, 2, 108)

    def outcomes(p_rows, _, chain):
        return RULES[rule](p_rows, one_hot_rows(chain, 4), chain)

    law, as_one_hot = joint_law(p, q, 2, outcomes)
    assert distance(law, p, 2) < 1e-9
    assert 0 < as_one_hot < joint_law(p, q, 2, RULES[rule])[1]


def test_the_likeliest_token_told_as_drawn_is_caught():
    """The reverse: always q's best token, with q handed in."""
    p, q = Tree(3, 2, 1), Tree(3, 2, 101)
    always = Tree(3, 2)
    always.rows = {h: torch.eye(3, dtype=torch.float64)[int(r.argmax())] for h, r in q.rows.items()}

    def outcomes(p_rows, _, chain):
        return rejection_outcomes(p_rows, q.along(chain)[:2], chain)

    law, _ = joint_law(p, always, 2, outcomes)
    assert distance(law, p, 2) > 1e-3


# How much is accepted


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_rejection_accepts_as_the_closed_form_says(depth):
    """(1 - a^(K+1)) / (1 - a) tokens a round, a = sum of min(p, q) the same at every position."""
    p, q = (0.1, 0.2, 0.7), (0.3, 0.3, 0.4)
    rate = sum(map(min, p, q))
    target, draft = Tree(3, depth, row=fixed(*p)), Tree(3, depth, row=fixed(*q))
    _, expected = joint_law(target, draft, depth, rejection_outcomes)
    assert expected + 1 == pytest.approx((1 - rate ** (depth + 1)) / (1 - rate), abs=1e-9)


def accepted_by(p, q, depth, rule):
    """Expected number accepted, without filling up the rest."""
    total = 0.0
    for chain in product(range(p.vocab_size), repeat=depth):
        rows = p.along(chain), q.along(chain)[:depth], chain
        total += q.chance(chain) * sum(n * chance for n, chance, _ in rule(*rows))
    return total


def test_block_accepts_at_least_as_much_as_rejection():
    gains = []
    for seed in range(30):
        vocab_size, depth = 2 + seed % 3, 1 + seed % 3
        p, q = Tree(vocab_size, depth, seed), Tree(vocab_size, depth, seed + 1000)
        rejection = accepted_by(p, q, depth, rejection_outcomes)
        gains.append((depth, accepted_by(p, q, depth, block_outcomes) - rejection))
    assert min(gain for _, gain in gains) > -1e-9
    assert max(gain for _, gain in gains) > 0.02
    assert max(abs(gain) for depth, gain in gains if depth == 1) < 1e-9  # one token: the same rule


# The pieces


def test_the_longest_prefix_whose_coin_falls_under_its_chance():
    assert num_accepted([0.5, 0.5, 0.5], [0.4, 0.9, 0.4]) == 3
    assert num_accepted([0.5, 0.5, 0.5], [0.4, 0.4, 0.5]) == 2
    assert num_accepted([0.5, 0.5], [0.9, 0.9]) == 0
    assert num_accepted([], []) == 0


def test_a_token_that_q_cannot_have_drawn_does_not_stand():
    p, q = torch.full((3, 2), 0.5), torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    weights = joint_weights(p, q, [0, 1])
    assert weights == [1.0, 1.0, 0.0]
    assert stop_chances(p, q, weights)[1] == 0.0


def test_residual_of_equals_is_the_target():
    p = torch.tensor([[0.2, 0.8], [0.5, 0.5]])
    assert torch.equal(residual(p, p), p)


def test_rows_are_judged_on_their_own():
    p = torch.tensor([[0.2, 0.8, 0.0], [0.5, 0.0, 0.5]])
    q = torch.tensor([[0.4, 0.1, 0.5], [0.5, 0.5, 0.0]])
    chances = acceptance(p, q, torch.tensor([0, 1]))
    assert chances.tolist() == [0.5, 0.0]
    left = residual(p, q)
    assert left[0].tolist() == [0.0, 1.0, 0.0]
    assert left[1].tolist() == [0.0, 0.0, 1.0]
