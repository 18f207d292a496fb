"""The flow map against its known answers: closed-form maps, symmetries, frequencies, batches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from models.batch import chain
from models.compute.x86 import kernels
from models.sampling.flow import NAME, STEPS, FlowMap
from models.sampling.noise import Purpose, normals, row_keys
from models.targets.load import load_target

COUNT = 40_000
DIGITS = Path(__file__).parents[3] / "examples/models/digits-raster"


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def law(vocab_size, seed=0, sharpness=1.0):
    return (sharpness * normal(vocab_size, seed=100 + seed)).softmax(-1)


def rows(probs, count):
    return probs.expand(count, -1)


def quantile(probs, noise):
    """The code, in ascending order, at the noise's quantile."""
    return torch.searchsorted(probs.cumsum(0), torch.special.ndtr(noise)).clamp_max(len(probs) - 1)


def test_the_name_holds_the_number_of_steps():
    assert NAME == "flow:K20:v1"
    assert f"flow:K{STEPS}:v1" == NAME


@pytest.mark.usefixtures("arithmetic")
def test_one_code_is_always_chosen():
    assert FlowMap(torch.ones(1, 3))(torch.ones(5, 1), normal(5, 3)).tolist() == [0] * 5


@pytest.mark.usefixtures("arithmetic")
def test_no_rows_give_no_tokens():
    assert FlowMap(torch.ones(2, 3))(torch.ones(0, 2), normal(0, 3)).shape == (0,)


@pytest.mark.usefixtures("arithmetic")
def test_a_code_of_probability_0_is_never_chosen():
    codes = normal(8, 2, seed=1)
    probs = law(8).clone()
    probs[[1, 4]] = 0
    tokens = FlowMap(codes)(rows(probs, 20_000), 3 * normal(20_000, 2))
    assert set(tokens.tolist()) == {0, 2, 3, 5, 6, 7}


@pytest.mark.parametrize(("steps", "least"), [(10, 0.9), (20, 0.99), (40, 0.996), (200, 0.9993)])
def test_on_a_line_it_is_the_quantile_map(steps, least):
    codes = normal(16, 1, seed=2).sort(0).values
    probs, noise = law(16), normal(4000, 1, seed=3)
    tokens = FlowMap(codes, steps=steps)(rows(probs, 4000), noise)
    assert (tokens == quantile(probs, noise[:, 0])).double().mean() >= least


@pytest.mark.parametrize(("steps", "least"), [(20, 0.997), (200, 0.9995)])
def test_a_product_law_goes_coordinate_by_coordinate(steps, least):
    codes = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    left, right = torch.tensor([0.7, 0.3]), torch.tensor([0.45, 0.55])
    noise = normal(4000, 2, seed=4)
    product = (left[:, None] * right).flatten().double()
    tokens = FlowMap(codes, steps=steps)(rows(product, 4000), noise)
    expected = 2 * quantile(left.double(), noise[:, 0]) + quantile(right.double(), noise[:, 1])
    assert (tokens == expected).double().mean() >= least


@pytest.mark.parametrize("kind", ["rotation", "reflection"])
def test_it_turns_with_codes_and_noise(kind):
    turn = torch.linalg.qr(normal(4, 4, seed=5))[0]
    if kind == "reflection":
        turn = turn @ torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    codes, noise = normal(12, 4, seed=6), normal(2000, 4, seed=7)
    plain = FlowMap(codes)(rows(law(12), 2000), noise)
    assert torch.equal(FlowMap(codes @ turn)(rows(law(12), 2000), noise @ turn), plain)


def test_the_order_of_the_codes_does_not_matter():
    codes, noise = normal(12, 4, seed=6), normal(2000, 4, seed=7)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(8))
    plain = FlowMap(codes)(rows(law(12), 2000), noise)
    assert torch.equal(order[FlowMap(codes[order])(rows(law(12)[order], 2000), noise)], plain)


@pytest.mark.parametrize(("width", "sharpness"), [(1, 1.0), (2, 2.0), (8, 1.0)])
def test_tokens_have_the_law(width, sharpness):
    """With the noise that a request's positions get. More steps leave sampling error alone."""
    probs = law(10, seed=width, sharpness=sharpness)
    keys = row_keys(np.full(COUNT, 11), np.arange(COUNT), Purpose.FLOW)
    codes, noise = normal(10, width, seed=9), normals(keys, width)
    counts = torch.bincount(FlowMap(codes)(rows(probs, COUNT), noise), minlength=10)
    assert (counts / COUNT - probs).abs().sum() / 2 < 0.01
    fine = FlowMap(codes, steps=80)(rows(probs, COUNT)[::4], noise[::4])
    assert chisquare(torch.bincount(fine, minlength=10), COUNT / 4 * probs).pvalue > 1e-3


@pytest.mark.slow
def test_many_tokens_have_the_law():
    probs, count = law(10, sharpness=2.0), 200_000
    noise = normals(row_keys(np.full(count, 12), np.arange(count), Purpose.FLOW), 3)
    tokens = FlowMap(normal(10, 3, seed=9), steps=80)(rows(probs, count), noise)
    assert chisquare(torch.bincount(tokens, minlength=10), count * probs).pvalue > 1e-3


@pytest.mark.skipif(not kernels.compiled(), reason="no compiled kernels here")
@pytest.mark.parametrize(("vocab_size", "width"), [(1, 1), (33, 3), (100, 8), (128, 13)])
def test_the_compiled_kernel_and_torch_give_the_same(vocab_size, width, monkeypatch):
    chart, noise = FlowMap(normal(vocab_size, width)), normal(500, width, seed=16)
    logits = 3 * normal(500, vocab_size, seed=17)
    logits[::3, 1::2] = -torch.inf
    tokens = chart.of_logits(logits, noise)
    back = chart.noise_of(logits.softmax(-1), tokens, noise)
    monkeypatch.setattr(kernels, "_kernels", None)
    assert torch.equal(chart.of_logits(logits, noise), tokens)
    torch.testing.assert_close(
        chart.noise_of(logits.softmax(-1), tokens, noise), back, rtol=1e-6, atol=1e-6
    )


@pytest.mark.skipif(not kernels.compiled(), reason="no compiled kernels here")
def test_the_number_of_threads_does_not_matter():
    chart, noise = FlowMap(normal(40, 5)), normal(300, 5, seed=18)
    probs, before = (2 * normal(300, 40, seed=19)).softmax(-1), torch.get_num_threads()
    tokens = chart(probs, noise)
    back = chart.noise_of(probs, tokens, noise)
    torch.set_num_threads(3)
    try:
        assert torch.equal(chart(probs, noise), tokens)
        assert torch.equal(chart.noise_of(probs, tokens, noise), back)
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("arithmetic")
def test_a_row_does_not_depend_on_the_batch():
    """To the bit, read from the other direction of the flow, whose result is not rounded."""
    codes, probs = normal(100, 8, seed=10), (3 * normal(300, 100, seed=11)).softmax(-1)
    noise, chart = normal(300, 8, seed=12), FlowMap(codes)
    tokens = chart(probs, noise)
    whole = chart.noise_of(probs, tokens, noise)
    for some in (slice(0, 1), slice(17, 18), slice(5, 90), slice(299, 300)):
        assert torch.equal(chart(probs[some], noise[some]), tokens[some])
        assert torch.equal(chart.noise_of(probs[some], tokens[some], noise[some]), whole[some])


@pytest.mark.usefixtures("arithmetic")
def test_noise_of_tokens_leads_to_them_and_is_normal():
    """Tokens drawn without this map, by torch's generator."""
    chart, count = FlowMap(normal(32, 4, seed=13)), 8000
    probs = rows(law(32), count)
    tokens = torch.multinomial(
        probs[0], count, replacement=True, generator=torch.Generator().manual_seed(14)
    )
    found = chart.noise_of(probs, tokens, normal(count, 4, seed=15))
    assert (chart(probs, found) == tokens).double().mean() > 0.99
    assert all(kstest(found[:, c].numpy(), "norm").pvalue > 1e-3 for c in range(4))
    assert (torch.corrcoef(found.T) - torch.eye(4)).abs().max() < 0.05


@pytest.mark.usefixtures("arithmetic")
def test_logits_and_probabilities_give_the_same():
    chart, noise = FlowMap(normal(20, 3)), normal(200, 3, seed=20)
    logits = 2 * normal(200, 20, seed=21) + 7
    logits[:, 3] = -torch.inf
    assert torch.equal(chart.of_logits(logits, noise), chart(logits.softmax(-1), noise))


@pytest.mark.usefixtures("arithmetic")
def test_what_does_not_fit_is_refused():
    chart = FlowMap(normal(4, 2))
    with pytest.raises(ValueError, match=r"probabilities have shape \(3, 5\), not \(rows, 4\)"):
        chart(torch.ones(3, 5), normal(3, 2))
    with pytest.raises(ValueError, match=r"noise has shape \(3, 1\), not \(3, 2\)"):
        chart(torch.ones(3, 4), normal(3, 1))
    with pytest.raises(ValueError, match="no probability above 0"):
        chart(torch.zeros(3, 4), normal(3, 2))
    with pytest.raises(ValueError, match="a token has probability 0"):
        chart.noise_of(torch.eye(4), torch.zeros(4, dtype=torch.int64), normal(4, 2))


def test_sequential_decoding_is_the_fixed_point_of_parallel_decoding():
    """Two grids of the digits target, bit for bit."""
    target = load_target(DIGITS, dtype=torch.float32)
    chart = FlowMap(_codebook())
    for seed in range(2):
        noise = normals(row_keys(np.full(64, seed), np.arange(64), Purpose.FLOW), chart.width)
        prompt = [target.vocab_size + seed]
        cache, tokens = target.new_cache(1, 65), list(prompt)
        for place in range(64):
            scores = target.score(cache, chain(0, np.array(tokens[-1:]))).logits
            cache.commit(0, np.array([0]))
            tokens += chart(scores.softmax(-1), noise[place : place + 1]).tolist()
        guess, before = [0] * 64, None
        while guess != before:
            scores = target.score(target.new_cache(1, 65), chain(0, np.array(prompt + guess[:-1])))
            before, guess = guess, chart(scores.logits.softmax(-1), noise).tolist()
        assert guess == tokens[1:]


def _codebook():
    from models.store import read_tensors

    return read_tensors(DIGITS / "model.safetensors")["model.codebook"]
