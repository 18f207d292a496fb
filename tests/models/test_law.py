"""The law of whole generations, through drafter, processing, verification and cache.

A table target's completions are enumerated exactly; thousands of seeds are then decoded and
compared by a chi-square test. Biased controls must fail the same test.
"""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Draft, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.drafter import useful_depth
from models.drafting.sizing.sizing import FixedSize
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from models.verify.rejection import rejection as rejection_rule
from tests.models.tiny import TableTarget, exact_law

VOCAB, LENGTH, PROMPT, SEEDS = 4, 3, (1, 2, 1), 1000


class GuessDrafter:
    """Draws chains from one fixed distribution q, or repeats one token without a q."""

    name, max_width, remote, wants = "guess", 1, False, None

    def __init__(self, q):
        self.q, self.passes = q, 0

    def propose(self, sequences, shape, context):
        drafts = []
        for i, sequence in enumerate(sequences):
            depth = useful_depth(sequence, shape)
            owners = np.repeat(context.owners[i], depth)
            if depth == 0 or not context.sampled:
                tokens = np.full(depth, int(self.q.argmax()))
                drafts.append(Draft(tokens=tokens, parents=np.arange(-1, depth - 1)))
                continue
            noise = context.noise.rows(context.purpose, owners, np.arange(depth))
            tokens = (self.q.log() + noise).argmax(-1).numpy()
            probs = self.q.expand(depth, -1)
            drafts.append(Draft(tokens=tokens, parents=np.arange(-1, depth - 1), probs=probs))
        return drafts

    def observe(self, round_, commits):
        pass

    def forget(self, request_id):
        pass


def decode(target, drafter, shape, sampling, rule, seeds=SEEDS, first=0, rows=32):
    loop = TokenLoop(
        target,
        drafter,
        FixedSize(shape),
        rows=rows,
        max_length=len(PROMPT) + sampling.max_tokens,
        scratch=40,
        verify=rule,
    )
    requests = [
        Request(id=str(s), prompt=PROMPT, sampling=sampling, seed=s + first) for s in range(seeds)
    ]
    return {r.id: r.tokens for r in loop.run(requests)}, loop.figures()


def fit(samples, law):
    """The chance of a statistic this large under the law; rare completions are pooled."""
    counts = {}
    for tokens in samples:
        counts[tokens] = counts.get(tokens, 0) + 1
    assert set(counts) <= set(law), "a completion of probability 0 was generated"
    total = len(samples)
    common = [k for k, p in law.items() if p * total >= 5]
    observed = np.array([counts.get(k, 0) for k in common] + [0.0])
    expected = np.array([law[k] * total for k in common] + [0.0])
    observed[-1], expected[-1] = total - observed.sum(), total - expected.sum()
    if expected[-1] < 5:
        observed, expected = observed[:-1], expected[:-1]
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1))


def reference(sampling):
    """The processed distribution, written out for one row."""

    def process(logits, generated):
        logits = logits.clone()
        for token, value in sampling.logit_bias.items():
            logits[token] += value
        for token in range(len(logits)):
            count = generated.count(token)
            if count or token in PROMPT:
                factor = sampling.repetition_penalty
                logits[token] = (
                    logits[token] / factor if logits[token] > 0 else logits[token] * factor
                )
            logits[token] -= sampling.frequency_penalty * count
            logits[token] -= sampling.presence_penalty * (count > 0)
        if len(generated) < sampling.min_tokens:
            logits[EOS] = -torch.inf
        logits = logits / sampling.temperature
        order = logits.argsort(descending=True)
        if sampling.top_k:
            logits[order[sampling.top_k :]] = -torch.inf
        probs = logits.softmax(0)
        before = probs[order].cumsum(0) - probs[order]
        logits[order[before >= sampling.top_p]] = -torch.inf
        probs = logits.softmax(0)
        probs = torch.where(probs < sampling.min_p * probs.max(), 0.0, probs)
        return probs / probs.sum()

    return process


EOS = 3
TARGET = TableTarget(VOCAB, 1, eos=(EOS,))
DRAFT_MODEL = TableTarget(VOCAB, 2, eos=(EOS,))
DRAFT_MODEL.table = 0.6 * TARGET.table + 0.6 * DRAFT_MODEL.table
Q = torch.tensor([0.4, 0.3, 0.2, 0.1])

SETTINGS = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "top-k": {"top_k": 2, "temperature": 1.3},
    "top-p": {"top_p": 0.8},
    "min-p": {"min_p": 0.3},
    "penalties": {"presence_penalty": 0.7, "frequency_penalty": 0.5, "repetition_penalty": 1.4},
    "bias-min": {"logit_bias": {2: 1.5}, "min_tokens": 2},
    "all": {"temperature": 1.2, "top_k": 3, "top_p": 0.9, "min_p": 0.05, "frequency_penalty": 0.4},
}
DRAFTERS = {
    "chain": (lambda: ModelDrafter(DRAFT_MODEL, rows=32, capacity=60), Shape(depth=2)),
    "tree": (lambda: ModelDrafter(DRAFT_MODEL, rows=32, capacity=60), Shape(depth=2, width=2)),
    "lookup": (LookupDrafter, Shape(depth=2)),
    "guess": (lambda: GuessDrafter(Q), Shape(depth=2)),
    "one-hot": (lambda: GuessDrafter(torch.eye(VOCAB)[2]), Shape(depth=2)),
}


def sampling_of(name):
    return Sampling(max_tokens=LENGTH, **SETTINGS[name])


@pytest.mark.parametrize("setting", SETTINGS)
def test_plain_decoding_has_the_target_law(setting):
    sampling = sampling_of(setting)
    out, _ = decode(TARGET, None, NOTHING, sampling, "match")
    law = exact_law(TARGET, PROMPT, LENGTH, reference(sampling))
    assert abs(sum(law.values()) - 1) < 1e-9
    assert fit(list(out.values()), law) > 1e-3


@cache
def plain_tokens(setting):
    return decode(TARGET, None, NOTHING, sampling_of(setting), "match", seeds=64)[0]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_match_gives_the_tokens_of_plain_decoding(setting, drafter):
    sampling = sampling_of(setting)
    make, shape = DRAFTERS[drafter]
    plain = plain_tokens(setting)
    drafted, figures = decode(TARGET, make(), shape, sampling, "match", seeds=64)
    assert drafted == plain
    assert figures.drafted > 0
    assert figures.accepted > 0 or drafter == "lookup"


@pytest.mark.parametrize("rule", ["rejection", "block"])
@pytest.mark.parametrize(
    ("drafter", "setting"),
    [("chain", s) for s in SETTINGS] + [("guess", "plain"), ("guess", "all"), ("one-hot", "all")],
)
def test_sampled_rules_have_the_target_law(rule, drafter, setting):
    sampling = sampling_of(setting)
    make, shape = DRAFTERS[drafter]
    out, figures = decode(TARGET, make(), shape, sampling, rule)
    law = exact_law(TARGET, PROMPT, LENGTH, reference(sampling))
    assert fit(list(out.values()), law) > 1e-3
    assert figures.drafted > 0
    assert figures.accepted > 0


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_lookup_under_sampled_rules(rule):
    sampling = sampling_of("plain")
    out, figures = decode(TARGET, LookupDrafter(), Shape(depth=2), sampling, rule)
    assert fit(list(out.values()), exact_law(TARGET, PROMPT, LENGTH, reference(sampling))) > 1e-3
    assert figures.drafted > 0


@pytest.mark.usefixtures("little_noise_ahead")
@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("rule", ["match", "rejection", "block"])
def test_penalties_count_what_earlier_rounds_gave(monkeypatch, rule, forgotten):
    """One request at a time: a changed batch would count anew. Forgotten is the biased control."""
    if forgotten:
        monkeypatch.setattr("models.sampling.processing.Processor.observe", lambda self, o, t: None)
    sampling = sampling_of("penalties")
    out, figures = decode(TARGET, GuessDrafter(Q), Shape(depth=1), sampling, rule, rows=1)
    law = exact_law(TARGET, PROMPT, LENGTH, reference(sampling))
    assert figures.accepted > 0
    chance = fit(list(out.values()), law)
    assert chance < 1e-6 if forgotten else chance > 1e-3


def biased(monkeypatch, control):
    """Break one thing; the law test must notice."""
    if control == "u = 0":
        monkeypatch.setattr(
            "models.verify.round.RoundNoise.uniform",
            lambda self, p, owners, lv: np.zeros(len(owners)),
        )
    elif control == "q swapped for one-hot":  # always the likeliest token, said to be drawn from q

        def likeliest(self, processor, processed, purpose, owners, levels):
            return processed.argmax(-1).numpy()

        monkeypatch.setattr("models.verify.round.RoundNoise.choose", likeliest)
    elif control == "bonus drawn from q":
        real = rejection_rule.__globals__["draw"]

        def draw(round_, probs, owners, levels):
            sizes = np.array([len(round_.drafts[b]) for b in owners.tolist()])
            full = torch.from_numpy((sizes == levels) & (levels > 0))[:, None]
            return real(round_, torch.where(full, Q, probs), owners, levels)

        monkeypatch.setitem(rejection_rule.__globals__, "draw", draw)
    elif control == "penalties lag by a round":
        monkeypatch.setattr(
            "models.verify.round.path_counts", lambda round_: torch.zeros_like(round_.logits)
        )


@pytest.mark.parametrize(
    ("control", "setting"),
    [
        ("u = 0", "plain"),
        ("q swapped for one-hot", "plain"),
        ("bonus drawn from q", "plain"),
        ("penalties lag by a round", "penalties"),
    ],
)
def test_biased_controls_fail(monkeypatch, control, setting):
    biased(monkeypatch, control)
    sampling = sampling_of(setting)
    drafter = GuessDrafter(Q)
    if control == "q swapped for one-hot":
        drafter = ModelDrafter(DRAFT_MODEL, rows=32, capacity=60)
    out, _ = decode(TARGET, drafter, Shape(depth=2), sampling, "rejection")
    law = exact_law(TARGET, PROMPT, LENGTH, reference(sampling))
    try:
        chance = fit(list(out.values()), law)
    except AssertionError:
        return
    assert chance < 1e-6
