"""A token of probability 0 is never emitted: not by the least coin, not by a draft, not by a tree.

Letters: K drafted tokens, V vocabulary.
"""

import numpy as np
import pytest
import torch

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import Draft, Shape, chain_draft
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.parallel.coupling import drawn, undecided
from models.registry import RULES, load
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore
from models.sampling.processing import Processor
from models.verify.round import Commit, Round, RoundNoise
from tests.models.guessing import Prophet
from tests.models.looping import loop_of, run_alone, tokens_of
from tests.models.tiny import TableTarget

CPU = torch.device("cpu")
VOCAB, NEVER = 4, 2
TARGET = TableTarget(VOCAB, 3)
EXCLUDED = TableTarget(VOCAB, 3)
EXCLUDED.table[..., NEVER] = -torch.inf  # the target itself says so
SAMPLINGS = {
    "logit bias": {"logit_bias": {NEVER: -torch.inf}},
    "bias and penalties": {"logit_bias": {NEVER: -torch.inf}, "repetition_penalty": 1.5},
    "greedy": {"logit_bias": {NEVER: -torch.inf}, "temperature": 0},
    "top-k": {"logit_bias": {NEVER: -torch.inf}, "top_k": 3},
    "top-p": {"logit_bias": {NEVER: -torch.inf}, "top_p": 0.9, "temperature": 1.3},
    "min-p": {"logit_bias": {NEVER: -torch.inf}, "min_p": 0.01},
}


@pytest.fixture
def least_coins(monkeypatch):
    """Every coin is 0, as one in 2**53 is."""
    monkeypatch.setattr(
        RoundNoise, "uniform", lambda self, purpose, owners, levels: np.zeros(len(owners))
    )


def round_of(draft, sampling, target=TARGET):
    """A round of one request over the table target."""
    sequence = Sequence(Request(id="a", prompt=(0, 1), sampling=sampling, seed=5))
    texts = [sequence.tokens]
    for parent, token in zip(draft.parents.tolist(), draft.tokens.tolist(), strict=True):
        texts.append([*texts[parent + 1], token])
    logits = torch.stack([target.table[text[-2], text[-1]] for text in texts])
    processor = Processor([sequence], VOCAB, CPU)
    noise = RoundNoise([sequence], NoiseStore(VOCAB, CPU))
    return Round([sequence], [draft], logits, processor, noise)


def told_as(kind, tokens):
    """The chain's q: none told, what it was drawn from, or 0 by the rounding at a filter's edge."""
    if kind == "one-hot":
        return None
    probs = torch.full((len(tokens), VOCAB), 1 / VOCAB)
    if kind == "zero":
        probs[np.arange(len(tokens)), tokens] = 0.0
        probs /= probs.sum(-1, keepdim=True)
    return probs


@pytest.mark.usefixtures("least_coins")
@pytest.mark.parametrize("setting", SAMPLINGS)
@pytest.mark.parametrize("kind", ["one-hot", "drawn", "zero"])
@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_the_least_coin_does_not_let_an_impossible_token_stand(rule, kind, setting):
    """Coin 0 against chance 0: a coin must fall under its chance."""
    for at in range(3):
        tokens = np.array([1, 3, 0])
        tokens[at] = NEVER
        draft = chain_draft(tokens, told_as(kind, tokens))
        sampling = Sampling(max_tokens=20, **SAMPLINGS[setting])
        commit = load(RULES[rule].where)(round_of(draft, sampling))[0]
        assert NEVER not in commit.tokens
        assert commit.num_accepted <= at


@pytest.mark.usefixtures("least_coins")
@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_nor_does_one_that_its_draft_cannot_have_drawn(rule):
    """The target likes it, but q gives it 0: both rules refuse it."""
    tokens = np.array([1, NEVER, 0])
    round_ = round_of(chain_draft(tokens, told_as("zero", tokens)), Sampling(max_tokens=20))
    assert load(RULES[rule].where)(round_)[0].num_accepted == 0


@pytest.mark.usefixtures("least_coins")
def test_nor_does_a_coupling_keep_it():
    """The old guess of a position, now impossible, under the least coin."""
    draft = chain_draft(np.array([1, NEVER, 3]))
    round_ = round_of(draft, Sampling(max_tokens=20, **SAMPLINGS["logit bias"]))
    round_.sequences[0].append(0)
    tokens, probs = drawn(round_, undecided(round_, [Commit([0], [0])]), "maximal")
    assert len(tokens) == 3
    assert tokens[0] != NEVER
    assert probs[:, NEVER].tolist() == [0.0] * 3


DRAFTERS = {
    "the impossible": (lambda: Impossible(1), Shape(depth=3)),
    "trees of it": (lambda: Impossible(2), Shape(depth=3, width=2)),
    "a model that likes it": (
        lambda: ModelDrafter(TARGET, rows=4, capacity=160), Shape(depth=3),
    ),
    "its trees, wider than what is possible": (
        lambda: ModelDrafter(EXCLUDED, rows=4, capacity=160), Shape(depth=3, width=VOCAB),
    ),
    "lookup": (LookupDrafter, Shape(depth=4)),
}  # fmt: skip


class Impossible(Prophet):
    """Guesses the token that is never said, again and again, and others beside it."""

    def __init__(self, width):
        super().__init__({}, VOCAB)
        self._width = width

    def _draft(self, sequence, shape):
        if self._width == 1:
            return chain_draft(np.array([NEVER] * shape.depth))
        tokens = np.array([NEVER, sequence.num_generated % VOCAB] * shape.depth)
        parents = np.repeat(np.arange(-1, 2 * shape.depth - 2, 2), 2)
        return Draft(tokens=tokens, parents=parents)


def requests(count):
    """All settings in one batch; the prompt holds the token, so that a copy of it does too."""
    prompt = (0, NEVER, 1, NEVER, 3, NEVER, 0)
    samplings = [Sampling(max_tokens=12, logprobs=2, **s) for s in SAMPLINGS.values()]
    return [
        Request(id=str(s), prompt=prompt, sampling=samplings[s % len(samplings)], seed=s)
        for s in range(count)
    ]


TARGETS = {"excludes it": EXCLUDED, "likes it": TARGET}


@pytest.mark.usefixtures("arithmetic", "little_noise_ahead")
@pytest.mark.parametrize("target", TARGETS)
def test_drafters_of_it_change_no_token(target):
    plain = run_alone(requests(18), target=TARGETS[target])
    for drafter in DRAFTERS.values():
        results = loop_of(drafter, target=TARGETS[target], rows=4).run(requests(18))
        assert tokens_of(results) == tokens_of(plain)
        for result in results:
            assert NEVER not in result.tokens
            assert all(np.isfinite(entry.logprob) for entry in result.logprobs)


@pytest.mark.usefixtures("least_coins", "arithmetic", "little_noise_ahead")
@pytest.mark.parametrize("rule", ["rejection", "block"])
@pytest.mark.parametrize("target", TARGETS)
def test_nor_does_it_come_under_the_sampled_rules(target, rule):
    for name, drafter in DRAFTERS.items():
        if "trees" not in name:
            loop = loop_of(drafter, target=TARGETS[target], rows=4, rule=rule)
            for result in loop.run(requests(12)):
                assert NEVER not in result.tokens
