"""The processed distribution against a plain reference, row by row; `choose` against its argmax."""

import numpy as np
import pytest
import torch

from models.compute.x86 import kernels
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence
from models.sampling.filters import keep_min_p, keep_top_k, keep_top_p
from models.sampling.noise import NoiseStore, Purpose, gumbel, row_keys
from models.sampling.processing import Processor
from tests.models.drawing import numbers_of

CPU = torch.device("cpu")


def processor_of(*samplings, vocab_size, prompts=None, eos=()):
    prompts = prompts or [(0,)] * len(samplings)
    requests = [
        Request(id=str(i), prompt=p, sampling=s)
        for i, (s, p) in enumerate(zip(samplings, prompts, strict=True))
    ]
    return Processor([Sequence(r, eos=eos) for r in requests], vocab_size, CPU)


def random_logits(rows, vocab_size, seed, *, ties=False):
    logits = 3 * torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed))
    return (logits * 2).round() / 2 if ties else logits


def noise_rows(rows, vocab_size, seed=0):
    keys = row_keys(np.full(rows, seed), np.arange(rows), Purpose.TOKEN)
    return gumbel(keys, vocab_size, CPU)


# References, one row at a time, no tensors tricks


def top_k_reference(logits, k):
    threshold = sorted(logits, reverse=True)[k - 1] if 0 < k <= len(logits) else -np.inf
    return [value >= threshold for value in logits]


def top_p_reference(logits, p):
    """Kept: tokens with less than p of the mass strictly above them."""
    if p == 1:
        return [True] * len(logits)
    weights = np.exp(np.array(logits, dtype=np.float64) - max(logits))
    probs = weights / weights.sum()
    return [probs[probs > own].sum() < p for own in probs]


def min_p_reference(logits, p):
    if p == 0:
        return [True] * len(logits)
    return [value >= max(logits) + np.log(np.float32(p)) for value in logits]


FILTERS = {
    "top-k": (keep_top_k, top_k_reference, [0, 1, 2, 5, 39, 40, 1000], torch.int64),
    "top-p": (keep_top_p, top_p_reference, [1e-6, 0.1, 0.5, 0.9, 0.999, 1.0], torch.float32),
    "min-p": (keep_min_p, min_p_reference, [0.0, 0.01, 0.2, 0.9, 1.0], torch.float32),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_keeps_what_the_reference_keeps(name, ties):
    keep, reference, settings, dtype = FILTERS[name]
    for seed in range(12):
        logits = random_logits(len(settings), 40, seed, ties=ties)
        kept = keep(logits.clone(), torch.tensor(settings, dtype=dtype))
        for row, setting in enumerate(settings):
            expected = reference(logits[row].tolist(), setting)
            assert torch.isfinite(kept[row]).tolist() == expected, (setting, seed)
        inside = torch.isfinite(kept)
        assert torch.equal(kept[inside], logits[inside])


def test_a_nucleus_wider_than_the_first_look():
    logits = torch.zeros(2, 1000)  # all equal: everything is as likely as the last one kept
    logits[1, :300] = 5.0
    kept = keep_top_p(logits, torch.tensor([0.5, 0.5]))
    assert torch.isfinite(kept).sum(-1).tolist() == [1000, 300]


def test_all_ties_stay():
    logits = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert torch.isfinite(keep_top_k(logits, torch.tensor([2]))).tolist()[0] == [1, 1, 1, 0]
    assert torch.isfinite(keep_top_p(logits, torch.tensor([0.3]))).tolist()[0] == [1, 1, 1, 0]


def test_the_likeliest_token_always_stays():
    logits = random_logits(6, 30, 3)
    for keep, setting in ((keep_top_k, [1] * 6), (keep_top_p, [1e-9] * 6), (keep_min_p, [1.0] * 6)):
        kept = keep(logits, torch.tensor(setting))
        assert torch.equal(kept.argmax(-1), logits.argmax(-1))
        assert torch.isfinite(kept).sum(-1).tolist() == [1] * 6


def test_filters_leave_excluded_tokens_out():
    logits = torch.tensor([[0.0, -torch.inf, 2.0, -torch.inf]])
    for keep, setting in ((keep_top_k, 3), (keep_top_p, 0.999), (keep_min_p, 1e-6)):
        kept = keep(logits, torch.tensor([setting]))
        assert torch.isfinite(kept).tolist()[0] == [True, False, True, False]


# `choose` looks at the filters only where the argmax may fail them

SETTINGS = [
    Sampling(),
    Sampling(temperature=0),
    Sampling(top_k=1),
    Sampling(top_k=5, temperature=0.5),
    Sampling(top_p=0.2),
    Sampling(top_p=0.95, temperature=1.7),
    Sampling(min_p=0.3),
    Sampling(top_k=7, top_p=0.6),
    Sampling(top_k=7, top_p=0.6, min_p=0.2, temperature=3.0),
    Sampling(temperature=0, top_k=3, top_p=0.5, min_p=0.5),
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("vocab_size", [12, 500])
def test_choose_is_the_argmax_over_what_passes(vocab_size, ties):
    processor = processor_of(*SETTINGS, vocab_size=vocab_size)
    owners = np.arange(len(SETTINGS))
    for seed in range(60):
        logits = random_logits(len(SETTINGS), vocab_size, seed, ties=ties)
        noise = noise_rows(len(SETTINGS), vocab_size, seed)
        values = processor(logits, owners, np.zeros_like(owners))
        probs = processor.probabilities(values, owners)
        masked = noise * torch.tensor([s.temperature > 0 for s in SETTINGS])[:, None]
        expected = torch.where(probs > 0, values + masked, -torch.inf).argmax(-1)
        assert torch.equal(processor.choose(values, noise, owners), expected)


@pytest.mark.skipif(not kernels.compiled(), reason="no compiled kernels here")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("vocab_size", [3, 12, 500])
def test_the_compiled_choice_is_the_same(vocab_size, ties):
    """With every filter, greedy rows among them, and the first of equals where rows are greedy."""
    processor = processor_of(*SETTINGS, vocab_size=vocab_size)
    owners = np.arange(len(SETTINGS))
    for seed in range(60):
        logits = random_logits(len(SETTINGS), vocab_size, seed, ties=ties)
        values = processor(logits, owners, np.zeros_like(owners))
        numbers = numbers_of(np.full(len(owners), seed), owners)
        expected = processor.choose(values, NoiseStore(vocab_size, CPU).rows(numbers), owners)
        found = processor.tokens(values, numbers, NoiseStore(vocab_size, CPU))
        assert found.tolist() == expected.tolist()


@pytest.mark.skipif(not kernels.compiled(), reason="no compiled kernels here")
def test_the_compiled_choice_takes_the_first_of_equals_and_no_excluded_token():
    draw = NoiseStore(21, CPU).draw(numbers_of(np.arange(3), np.arange(3)))
    flat, some = torch.zeros(3, 21), torch.full((3, 21), -torch.inf)
    some[:, 20] = -5.0
    greedy, noisy = (kernels.Knobs(np.full(3, on)) for on in (False, True))
    assert kernels.choose(draw, greedy, flat).tolist() == [0, 0, 0]
    assert kernels.choose(draw, noisy, some).tolist() == [20, 20, 20]


def test_choose_keeps_to_the_nucleus_where_masses_meet_p_exactly():
    """Sums in another order must not decide otherwise; every token in turn has the best noise."""
    size, owner = 60, np.zeros(60, dtype=np.int64)
    for seed in range(60):
        logits = random_logits(1, size, seed)
        mass = logits.softmax(-1)[0].sort(descending=True).values.cumsum(0)[seed // 3]
        p = float(mass) * (1 + 6e-8 * (seed % 3 - 1))  # and its neighbours
        processor = processor_of(Sampling(top_p=min(p, 1.0)), vocab_size=size)
        values = logits.expand(size, -1)
        kept = processor.probabilities(values, owner)[0] > 0
        chosen = processor.choose(values, 100 * torch.eye(size), owner)
        assert kept[chosen].all()
        assert set(chosen.tolist()) == set(kept.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("vocab_size", [500, 40_000])
def test_a_row_is_the_same_alone_and_among_others(vocab_size):
    processor = processor_of(*SETTINGS, vocab_size=vocab_size)
    owners = np.arange(len(SETTINGS))
    logits = random_logits(len(SETTINGS), vocab_size, 1)
    noise = noise_rows(len(SETTINGS), vocab_size)
    values = processor(logits, owners, 0 * owners)
    chosen, probs = processor.choose(values, noise, owners), processor.probabilities(values, owners)
    for row in owners.tolist():
        one = np.array([row])
        alone = processor(logits[row : row + 1], one, 0 * one)
        assert torch.equal(alone[0], values[row])
        assert torch.equal(processor.probabilities(alone, one)[0], probs[row])
        assert processor.choose(alone, noise[row : row + 1], one)[0] == chosen[row]


def test_rows_may_come_in_any_order_and_number():
    processor = processor_of(*SETTINGS, vocab_size=50)
    owners = np.array([3, 3, 0, 9, 1, 3])
    logits = random_logits(6, 50, 4)
    values = processor(logits, owners, 0 * owners)
    for row, owner in enumerate(owners.tolist()):
        one = processor_of(SETTINGS[owner], vocab_size=50)
        expected = one(logits[row : row + 1], np.array([0]), np.array([0]))
        assert torch.equal(values[row], expected[0])


# Probabilities


def test_probabilities_sum_to_one_and_follow_the_order_of_filters():
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    sampling = Sampling(temperature=2.0, top_k=3, top_p=0.7, min_p=0.1)
    processor = processor_of(sampling, vocab_size=4)
    values = processor(logits, np.array([0]), np.array([0]))
    probs = processor.probabilities(values, np.array([0]))
    # 4 3 2 at temperature 2: 0.506 0.307 0.186; 0.7 is reached by two of them
    two = torch.tensor([2.0, 1.5]).softmax(0)
    assert torch.allclose(probs[0], torch.tensor([two[0], two[1], 0, 0]))


def test_a_greedy_row_is_one_hot_beside_stochastic_ones():
    processor = processor_of(Sampling(temperature=0), Sampling(), vocab_size=30)
    logits, owners = random_logits(2, 30, 2), np.array([0, 1])
    values = processor(logits, owners, 0 * owners)
    probs = processor.probabilities(values, owners)
    assert probs[0].max() == 1
    assert probs[0].argmax() == logits[0].argmax()
    assert torch.allclose(probs[1], logits[1].softmax(-1))
    chosen = processor.choose(values, noise_rows(2, 30), owners)
    assert chosen[0] == logits[0].argmax()
    assert processor.choose(values[:1], None, owners[:1])[0] == logits[0].argmax()


def test_the_logits_given_are_left_as_they_are():
    sampling = Sampling(
        temperature=0.5, top_k=3, top_p=0.5, min_p=0.1, presence_penalty=1.0, min_tokens=3,
        logit_bias={1: 2.0}, stop_token_ids=(4,),
    )  # fmt: skip
    processor = processor_of(sampling, vocab_size=10)
    logits, owners = random_logits(1, 10, 5), np.array([0])
    before = logits.clone()
    values = processor(logits, owners, owners)
    processor.choose(values, noise_rows(1, 10), owners)
    processor.probabilities(values, owners)
    assert torch.equal(logits, before)


# Bias and minimum length


def test_bias_is_added_to_its_own_request():
    processor = processor_of(
        Sampling(logit_bias={2: 5.0, 3: -100.0}), Sampling(), Sampling(logit_bias={2: -1.0}),
        vocab_size=5,
    )  # fmt: skip
    owners = np.array([0, 1, 2])
    values = processor(torch.zeros(3, 5), owners, 0 * owners)
    assert values.tolist() == [[0, 0, 5, -100, 0], [0, 0, 0, 0, 0], [0, 0, -1, 0, 0]]


def test_nothing_may_end_a_request_before_its_minimum():
    long, short = Sampling(min_tokens=3, stop_token_ids=(1,)), Sampling(stop_token_ids=(1,))
    processor = processor_of(long, short, long, vocab_size=5, eos=(4,))
    assert not processor.elementwise
    values = processor(torch.zeros(3, 5), np.array([0, 1, 2]), np.array([2, 0, 3]))
    assert torch.isinf(values).tolist() == [[0, 1, 0, 0, 1], [0] * 5, [0] * 5]


def test_ignoring_eos_leaves_it_among_the_tokens():
    sampling = Sampling(min_tokens=3, ignore_eos=True)
    processor = processor_of(sampling, vocab_size=5, eos=(4,))
    assert torch.isfinite(processor(torch.zeros(1, 5), np.array([0]), np.array([0]))).all()


# Penalties


def penalised_reference(logits, sampling, prompt, generated):
    out = list(logits)
    for token in range(len(out)):
        count = list(generated).count(token)
        if count or token in prompt:
            factor = sampling.repetition_penalty
            out[token] = out[token] / factor if out[token] > 0 else out[token] * factor
        out[token] -= sampling.frequency_penalty * count + sampling.presence_penalty * bool(count)
    return out


PENALISED = [
    Sampling(presence_penalty=0.5),
    Sampling(frequency_penalty=-0.3),
    Sampling(repetition_penalty=1.7),
    Sampling(repetition_penalty=0.6),
    Sampling(),
    Sampling(presence_penalty=1.0, frequency_penalty=0.2, repetition_penalty=1.2),
]


def test_penalties_count_what_was_observed():
    prompts = [(1, 1, 2), (0,), (5, 6), (1,), (2, 3), (7, 7, 7)]
    processor = processor_of(*PENALISED, vocab_size=8, prompts=prompts)
    generated = [[] for _ in prompts]
    rng, owners = np.random.default_rng(0), np.arange(len(prompts))
    for step in range(12):
        logits = random_logits(len(prompts), 8, step)
        values = processor(logits, owners, np.full(len(owners), step))
        for b in owners.tolist():
            expected = penalised_reference(
                logits[b].tolist(), PENALISED[b], prompts[b], generated[b]
            )
            assert values[b].tolist() == pytest.approx(expected, abs=1e-5)
        tokens = rng.integers(0, 8, len(prompts))
        processor.observe(owners, tokens)
        for b, token in enumerate(tokens.tolist()):
            generated[b].append(token)


def test_retract_undoes_observe():
    processor = processor_of(*PENALISED, vocab_size=8)
    logits, owners = random_logits(6, 8, 1), np.arange(6)
    processor.observe(owners, np.array([1, 2, 3, 4, 5, 6]))
    before = processor(logits, owners, owners)
    # One request twice, the same token twice: both count.
    some, tokens = np.array([0, 0, 5, 5]), np.array([2, 2, 6, 1])
    processor.observe(some, tokens)
    assert not torch.equal(processor(logits, owners, owners), before)
    processor.retract(some, tokens)
    assert torch.equal(processor(logits, owners, owners), before)
    processor.observe(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert torch.equal(processor(logits, owners, owners), before)


def test_a_request_that_continues_counts_what_it_has():
    """A sequence that joins with generated tokens is penalised for them."""
    sequence = Sequence(Request(id="a", prompt=(1,), sampling=PENALISED[5]))
    for token in (3, 3, 4):
        sequence.append(token)
    joined = Processor([sequence], 8, CPU)
    grown = processor_of(PENALISED[5], vocab_size=8, prompts=[(1,)])
    for token in (3, 3, 4):
        grown.observe(np.array([0]), np.array([token]))
    logits, owner = random_logits(1, 8, 3), np.array([0])
    assert torch.equal(joined(logits, owner, owner), grown(logits, owner, owner))


@pytest.mark.usefixtures("arithmetic")
def test_elementwise_only_where_no_position_depends_on_another():
    assert processor_of(Sampling(), Sampling(temperature=0), vocab_size=4).elementwise
    for sampling in (PENALISED[0], Sampling(min_tokens=1)):
        assert not processor_of(Sampling(), sampling, vocab_size=4).elementwise
    # By torch filters are dear, and applied to the nodes that are reached.
    filtered = processor_of(Sampling(), Sampling(top_k=2), vocab_size=4)
    assert filtered.elementwise == kernels.compiled()
    greedy = Sampling(temperature=0, top_k=2)  # greedy requests ignore filters
    assert processor_of(greedy, vocab_size=4).elementwise
