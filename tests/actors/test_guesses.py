"""Messages from a draft actor: what makes sense becomes a draft, the rest is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.drafts.draft import sparse
from actors.drafts.guesses import BadGuess, Wanted, to_draft
from actors.messages import Guess, SparseRows
from models.drafting.draft import Shape

V = 8
WANTED = Wanted(
    version=5,
    shape=Shape(depth=3, width=2),
    depth=3,
    vocab_size=V,
    chain=False,
    probs=False,
    device=torch.device("cpu"),
)
DRAWN = replace(WANTED, shape=Shape(depth=3), chain=True, probs=True)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def tree(**changed: object) -> Guess:
    fields = {"tokens": ints(1, 2, 3, 4, 5), "parents": ints(-1, -1, 0, 1, 2)}
    return Guess(**{"id": "a", "version": 5, **fields, **changed})


def chain(**changed: object) -> Guess:
    probs = torch.full((3, V), 1 / V)
    probs[1] = torch.tensor([0.5, 0, 0.5, 0, 0, 0, 0, 0])
    fields = {"tokens": ints(1, 2, 3), "parents": ints(-1, 0, 1), "probs": sparse(probs)}
    return Guess(**{"id": "a", "version": 5, **fields, **changed})


def test_a_tree_arrives_as_it_was_sent():
    draft = to_draft(tree(), WANTED)
    assert draft.tokens.tolist() == [1, 2, 3, 4, 5]
    assert draft.parents.tolist() == [-1, -1, 0, 1, 2]
    assert draft.probs is None


def test_distributions_arrive_bit_for_bit():
    probs = torch.rand(3, V).masked_fill_(torch.rand(3, V) < 0.3, 0.0)
    probs[range(3), range(1, 4)] += 0.1
    probs /= probs.sum(-1, keepdim=True)
    draft = to_draft(chain(probs=sparse(probs)), DRAWN)
    assert torch.equal(draft.probs, probs)


def test_another_version_is_no_draft():
    assert to_draft(tree(version=4), WANTED) is None


def test_a_draft_is_cut_to_what_is_wanted_now():
    assert len(to_draft(tree(), replace(WANTED, depth=2))) == 4
    assert len(to_draft(tree(), replace(WANTED, shape=Shape(depth=3, width=1)))) == 3
    draft = to_draft(chain(), replace(DRAWN, depth=1))
    assert len(draft) == len(draft.probs) == 1
    assert len(to_draft(chain(), replace(DRAWN, depth=0))) == 0


@pytest.mark.parametrize(
    "guess",
    [
        None,
        "draft",
        tree(tokens=[1, 2, 3, 4, 5]),
        tree(tokens=ints(1, 2, 3, 4)),
        tree(tokens=ints(1, 2, 3, 4, V)),
        tree(tokens=ints(1, 2, 3, 4, -1)),
        tree(tokens=np.ones(5)),
        tree(tokens=ints(1, 2, 3, 4, 5)[None]),
        tree(parents=ints(-1, -1, 0, 1, 4)),
        tree(parents=ints(-1, -1, 0, 1, 5)),
        tree(parents=ints(-2, -1, 0, 1, 2)),
        tree(parents=ints(-1, 0, 1, -1, 2)),  # depths 1 2 3 1 4: out of order
    ],
)
def test_what_is_no_tree_is_refused(guess):
    with pytest.raises(BadGuess):
        to_draft(guess, WANTED)


def rows(bounds, tokens, probs) -> SparseRows:
    return SparseRows(
        bounds=ints(*bounds),
        tokens=np.array(tokens, dtype=np.int32),
        probs=np.array(probs, dtype=np.float32),
    )


@pytest.mark.parametrize(
    "guess",
    [
        tree(),
        chain(probs=None),
        chain(probs=torch.full((3, V), 1 / V)),
        chain(probs=rows((0, 1, 2), (1, 2), (1, 1))),
        chain(probs=rows((0, 1, 2, 4), (1, 2, 3), (1, 1, 1))),
        chain(probs=rows((0, 1, 2, 3), (1, 2, V), (1, 1, 1))),
        chain(probs=rows((0, 1, 2, 3), (1, 2, 4), (1, 1, 1))),  # token 3 could not be drawn
        chain(probs=rows((0, 1, 2, 3), (1, 2, 3), (1, 1, 0.5))),
        chain(probs=rows((0, 1, 2, 4), (1, 2, 3, 3), (1, 1, 0.5, 0.5))),
        chain(probs=rows((0, 1, 2, 4), (1, 2, 3, 4), (1, 1, 2, -1))),
        chain(probs=rows((0, 1, 2, 3), (1, 2, 3), (1, 1, np.nan))),
    ],
)
def test_what_is_no_sampled_chain_is_refused(guess):
    with pytest.raises(BadGuess):
        to_draft(guess, DRAWN)
