"""The law of the parallel decoders, through the whole loop, against every completion's chance.

Known answers are those of a simulation with random conditional tables, V = 4, n = 4: mean target
passes where sequential decoding takes 4. The published variants that are biased are the controls:
they must fail the test that the exact ones pass.
"""

import numpy as np
import pytest
import torch

from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start, Window
from models.sampling.noise import Purpose, gumbel, row_keys, uniform
from models.verify.round import Commit
from tests.models import test_law
from tests.models.enumerated import LENGTH, VOCAB, HistoryTarget, decode, fit, joint
from tests.models.tiny import exact_law

pytestmark = pytest.mark.usefixtures("little_noise_ahead")
TARGET = HistoryTarget(seed=2, spread=1.35)
SEEDS = 8000
SURE = 1e-6  # a biased rule's chance is below, an exact one's never


def drafter_of(coupling, start="uniform"):
    return JacobiDrafter(coupling, Start(rule=start, row_length=2))


# Exact ones


@pytest.mark.parametrize(
    ("coupling", "passes"), [("fresh", 2.82), ("maximal", 2.83), ("gumbel", 2.83)]
)
def test_speculative_jacobi_has_the_target_s_law(coupling, passes):
    tokens, found = decode(TARGET, drafter_of(coupling), SEEDS)
    ratio, chance = fit(tokens, joint(TARGET))
    assert chance > 1e-3
    assert 0.7 < ratio < 1.3
    assert found.mean() == pytest.approx(passes, abs=0.06)


def test_jacobi_has_the_target_s_law_and_the_tokens_of_plain_decoding():
    plain, ones = decode(TARGET, None, SEEDS // 4, window=1, rule="match")
    assert (ones == LENGTH).all()
    tokens, _ = decode(TARGET, drafter_of("shared"), SEEDS // 4, rule="match")
    assert (tokens == plain).all()
    assert fit(tokens, joint(TARGET))[1] > 1e-3


def by_hand(seeds):
    """Passes until all positions are known, and until a pass changes nothing: [seeds] each."""
    keys = [np.repeat(np.arange(seeds), LENGTH), np.tile(np.arange(1, LENGTH + 1), seeds)]
    noise = gumbel(row_keys(*keys, Purpose.TOKEN), VOCAB, torch.device("cpu")).numpy()
    noise = noise.reshape(seeds, LENGTH, VOCAB)
    guess = (uniform(row_keys(*keys, Purpose.START)) * VOCAB).astype(int).reshape(seeds, LENGTH)
    table = TARGET.table.numpy()
    known, passes = np.zeros(seeds, int), np.zeros((2, seeds))
    changing = np.ones(seeds, bool)
    for _ in range(LENGTH + 1):
        passes += np.stack([known < LENGTH, changing])
        code, made, right = np.ones(seeds, int), np.empty_like(guess), np.ones(seeds, bool)
        for i in range(LENGTH):
            made[:, i] = (table[code] + noise[:, i]).argmax(1)
            code = code * VOCAB + guess[:, i]
            known = np.where(right, np.maximum(known, i + 1), known)
            right &= made[:, i] == guess[:, i]
        changing &= (made != guess).any(1)
        guess = made
    assert (known == LENGTH).all()
    assert not changing.any()
    return passes


def test_jacobi_takes_the_passes_of_a_fixed_point_without_the_last_look():
    """The simulation's 3.39 counts the pass that sees that nothing changes; none is needed here:
    a token behind right ones is known to be right."""
    _, found = decode(TARGET, drafter_of("shared"), 2000, rule="match")
    until_known, until_still = by_hand(2000)
    assert (found == until_known).all()
    assert until_still.mean() == pytest.approx(3.39, abs=0.1)
    assert found.mean() == pytest.approx(2.83, abs=0.06)


@pytest.mark.parametrize("coupling", ["fresh", "maximal", "gumbel"])
@pytest.mark.parametrize(("window", "start"), [(1, "left"), (2, "above")])
def test_any_window_and_any_start(coupling, window, start):
    tokens, passes = decode(TARGET, drafter_of(coupling, start), 3000, window=window)
    assert fit(tokens, joint(TARGET))[1] > 1e-3
    assert 2.5 < passes.mean() < 3.8


@pytest.mark.parametrize("coupling", ["fresh", "maximal", "gumbel"])
@pytest.mark.parametrize("setting", ["top-k", "penalties", "bias-min", "all"])
def test_sampling_options(coupling, setting):
    sampling = test_law.sampling_of(setting)
    shape = test_law.Shape(depth=2)
    out, figures = test_law.decode(
        test_law.TARGET, drafter_of(coupling, "left"), shape, sampling, "rejection", seeds=1500
    )
    law = exact_law(test_law.TARGET, test_law.PROMPT, test_law.LENGTH, test_law.reference(sampling))
    assert test_law.fit(list(out.values()), law) > 1e-3
    assert figures.accepted > 0


# Biased ones, and what mends them


CARRIED = {}  # request id -> tokens that were accepted but not committed, and what is told of them


def batch_minimum(record, batch):
    """All of a batch advance by the fewest that one of them could: what is left is judged again.

    `record`: "q", what the token was first drawn from (as published), or "p" of the last pass.
    """

    def rule(round_):
        owners, levels = round_.nodes()
        coins = round_.noise.uniform(Purpose.ACCEPT, owners, levels)
        noise = round_.noise.rows(Purpose.RESIDUAL, owners, levels).numpy()
        probs = round_.logits.softmax(-1).numpy()
        judged, least = [], {}
        for b, sequence in enumerate(round_.sequences):
            own = slice(round_.starts[b], round_.starts[b] + len(round_.drafts[b]) + 1)
            judged.append(judge(round_.drafts[b], probs[own], coins[own], noise[own]))
            group = int(sequence.id) // batch
            least[group] = min(least.get(group, LENGTH), len(judged[-1][0]))
        commits = []
        for sequence, (tokens, p, q) in zip(round_.sequences, judged, strict=True):
            kept, told = least[int(sequence.id) // batch], p.copy()
            if record == "q":
                told[:-1] = q
            CARRIED[sequence.id] = np.array(tokens[kept:], dtype=np.int64), told[kept:]
            commits.append(Commit(tokens[:kept], list(range(kept))))
            for token in tokens[:kept]:
                sequence.append(token)
        return commits

    return rule


def judge(draft, p, coins, noise):
    """What `rejection` would emit [n], the target's rows [n, V] there, the draft's [n - 1, V]."""
    tokens, size = draft.tokens.tolist(), len(draft)
    q = draft.probs.numpy() if size else p[:0]
    n = 0
    while n < size and coins[n] < p[n, tokens[n]] / q[n, tokens[n]]:
        n += 1
    left = p[n] if n == size else (p[n] - q[n]).clip(min=0)
    with np.errstate(divide="ignore"):
        last = int((np.log(left) + noise[n]).argmax())
    return [*tokens[:n], last], p[: n + 1], q[:n]


class CarryingDrafter(JacobiDrafter):
    """Keeps what was accepted but not committed."""

    def observe(self, round_, commits):
        super().observe(round_, commits)
        for sequence in round_.sequences:
            tokens, told = CARRIED.pop(sequence.id)
            window, n = self._windows.get(sequence.id), len(tokens)
            if window is not None:
                self._windows[sequence.id] = Window(
                    np.concatenate([tokens, window.tokens[n:]]),
                    torch.cat([torch.from_numpy(told), window.probs[n:]]),
                )


@pytest.mark.parametrize(("record", "passes"), [("q", 3.64), ("p", 3.53)])
def test_advancing_by_the_batch_minimum(monkeypatch, record, passes):
    """Judging a token twice by what it was first drawn from is biased; by the last p it is not."""
    monkeypatch.setattr("models.verify.rejection.rejection", batch_minimum(record, batch=4))
    drafter = CarryingDrafter("fresh", Start(rule="left"))
    tokens, found = decode(TARGET, drafter, SEEDS)
    chance = fit(tokens, joint(TARGET))[1]
    assert found.mean() == pytest.approx(passes, abs=0.08)
    assert chance < SURE if record == "q" else chance > 1e-3


def clusters(p, q, token):
    """Accept a token by what its cluster of two has in p and q (GSD)."""
    pair = torch.stack([token, token ^ 1], 1)
    return (p.gather(1, pair).sum(1) / q.gather(1, pair).sum(1)).clamp(max=1.0)


def same_coins(self, purpose, owners, levels):
    """The coin that kept a guess also judges it."""
    keys = row_keys(self._seeds[owners], self._starts[owners] + levels, Purpose.COUPLE)
    return uniform(keys)


def break_one_thing(monkeypatch, name):
    if name == "clusters of two":
        monkeypatch.setattr("models.verify.rejection.acceptance", clusters)
    elif name == "the coupling's coins":
        monkeypatch.setattr("models.verify.round.RoundNoise.uniform", same_coins)
    elif name == "no residual behind a coupling":  # not kept: drawn from all of p
        monkeypatch.setattr("models.drafting.parallel.coupling.residual", lambda p, q: p)


@pytest.mark.parametrize(
    ("name", "coupling"),
    [
        ("clusters of two", "fresh"),
        ("the coupling's coins", "maximal"),
        ("no residual behind a coupling", "maximal"),
    ],
)
def test_a_biased_control_is_caught(monkeypatch, name, coupling):
    break_one_thing(monkeypatch, name)
    tokens, passes = decode(TARGET, drafter_of(coupling, "left"), SEEDS)
    assert fit(tokens, joint(TARGET))[1] < SURE
    if name == "clusters of two":
        assert passes.mean() == pytest.approx(2.27, abs=0.08)


# The tests' own set-up


def test_the_target_reads_its_cache_and_its_batch():
    """Plain decoding, every step by hand."""
    tokens, _ = decode(TARGET, None, 50, window=1, rule="match")
    for seed, row in enumerate(tokens.tolist()):
        code = 1
        for position, token in enumerate(row, 1):
            key = row_keys(np.array([seed]), np.array([position]), Purpose.TOKEN)
            noise = gumbel(key, VOCAB, torch.device("cpu"))[0]
            assert token == int((TARGET.table[code] + noise).argmax())
            code = code * VOCAB + token
    assert joint(TARGET).sum() == pytest.approx(1)
