"""Parallel decoding of real targets: the tokens of plain decoding, in fewer passes."""

from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.drafting.draft import EMPTY, Shape, chain_draft
from models.drafting.drafter import DraftContext
from models.drafting.parallel.coupling import drawn, processed, undecided
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.engine import EngineConfig, build_loop
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore
from models.sampling.processing import Processor
from models.training.raster import RasterConfig, RasterModel
from models.verify.match import match
from models.verify.round import Round, RoundNoise
from tests.models import checkpoints
from tests.models.looping import SAMPLINGS

CPU = torch.device("cpu")
RASTER = RasterConfig(
    vocab_size=24, code_width=4, num_classes=3, grid_width=4, grid_height=6,
    width=32, inner_width=48, num_layers=2, num_heads=2,
)  # fmt: skip
OPTIONS = [o for o in SAMPLINGS if "stop" not in o]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Image and text targets whose logits are far from equal."""
    found = {name: tmp_path_factory.mktemp(name) for name in ("raster", "text")}
    torch.manual_seed(3)
    model = RasterModel(RASTER, F.normalize(torch.randn(24, 4), dim=-1))
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.25)
    model.save(found["raster"], torch.float32)
    checkpoints.save(found["text"], "llama3")
    return {name: str(folder) for name, folder in found.items()}


def requests(kind, count=32):
    prompts = {"raster": lambda i: (24 + i % 3,), "text": lambda i: (3, *range(9, 9 + i % 5))}
    return [
        Request(
            id=str(i),
            prompt=prompts[kind](i),
            sampling=Sampling(max_tokens=24, **OPTIONS[i % len(OPTIONS)]),
            seed=i,
        )
        for i in range(count)
    ]


def decode(folders, kind="raster", count=32, **options):
    loop = build_loop(EngineConfig(target=folders[kind], **options))
    with torch.inference_mode():
        results = loop.run(requests(kind, count))
    return {r.id: r.tokens for r in results}, loop, results


@pytest.fixture(scope="module")
def plain(folders):
    return cache(lambda kind, guidance: decode(folders, kind, batch_size=1, guidance=guidance)[0])


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize(
    ("batch", "window", "start"),
    [
        (1, 1, "left"),
        (1, 23, "above"),
        (8, 4, "above"),
        (8, 16, "uniform"),
        (32, 2, "uniform"),
        (32, "auto", "left"),
    ],
)
def test_jacobi_gives_the_grids_of_plain_decoding(folders, plain, guidance, batch, window, start):
    found, loop, results = decode(
        folders, batch_size=batch, drafter="jacobi", draft_tokens=window, start=start,
        guidance=guidance,
    )  # fmt: skip
    assert found == plain("raster", guidance)
    label = "identical" if loop.target.steady else "identical up to rounding"
    assert {r.exactness for r in results} == {label}
    assert loop.figures().accepted > 30
    assert sum(r.target_passes for r in results) < 0.97 * sum(len(r.tokens) for r in results)
    assert not loop.drafter._windows


def test_grids_differ_by_class_and_guidance(plain):
    """What the test above compares is not one grid again and again."""
    for guidance in (1.0, 2.5):
        assert len(set(plain("raster", guidance).values())) > 25
    assert plain("raster", 1.0) != plain("raster", 2.5)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("start", ["left", "uniform"])
def test_text_too(folders, plain, batch, start):
    found, loop, _ = decode(
        folders, "text", batch_size=batch, drafter="jacobi", draft_tokens=6, start=start
    )
    assert found == plain("text", 1.0)
    assert loop.figures().accepted > 0


@pytest.mark.parametrize(
    ("drafter", "coupling"), [("sjd", "maximal"), ("mc-sjd", "maximal"), ("mc-sjd", "gumbel")]
)
def test_sampled_decoders_do_not_depend_on_company(folders, drafter, coupling):
    """Their tokens are other ones than plain decoding's, but a function of the seed as well."""
    options = {"drafter": drafter, "coupling": coupling, "draft_tokens": 8}
    alone, _, results = decode(folders, count=12, batch_size=1, **options)
    together, loop, _ = decode(folders, count=12, batch_size=8, **options)
    assert alone == together
    assert {r.exactness for r in results} == {"distribution"}
    assert loop.figures().accepted > 10
    assert loop.describe()["verify"] == "rejection"


def test_greedy_requests_get_the_target_s_likeliest_tokens(folders, plain):
    """At temperature 0 a law is one outcome."""
    greedy = {r.id for r in requests("raster") if r.sampling.temperature == 0}
    for drafter in ("sjd", "mc-sjd"):
        found, _, _ = decode(folders, batch_size=8, drafter=drafter)
        assert {i: found[i] for i in greedy} == {i: plain("raster", 1.0)[i] for i in greedy}


# The parts

VOCAB = 6
PENALTIES = {"presence_penalty": 0.5, "frequency_penalty": 0.7, "repetition_penalty": 1.3}


def round_of(drafts, **sampling):
    """A round over random logits, and its sequences."""
    torch.manual_seed(0)
    sequences = [
        Sequence(Request(id=str(b), prompt=(1, b), sampling=Sampling(**sampling), seed=b))
        for b in range(len(drafts))
    ]
    logits = 2 * torch.randn(sum(len(d) + 1 for d in drafts), VOCAB)
    noise = RoundNoise(sequences, NoiseStore(VOCAB, CPU))
    return Round(sequences, drafts, logits, Processor(sequences, VOCAB, CPU), noise)


def chains(*tokens):
    return [chain_draft(np.array(t, dtype=np.int64)) if t else EMPTY for t in tokens]


def test_distributions_count_what_was_decided_and_then_the_path():
    drafts = chains((1, 1, 2, 2), (), (0, 3, 3), (5,))
    round_ = round_of(drafts, **PENALTIES, min_tokens=4, stop_token_ids=(2,))
    commits = match(round_)
    left = undecided(round_, commits)
    assert len(left.owners) >= 4
    assert 1 not in left.owners
    found = processed(round_, left)
    for row, (b, node) in enumerate(zip(left.owners.tolist(), left.nodes.tolist(), strict=True)):
        path = drafts[b].tokens[len(commits[b].tokens) : node]
        owner = np.array([b])
        for token in path.tolist():
            round_.processor.observe(owner, np.array([token]))
        logits = round_.logits[round_.starts[b] + node][None]
        generated = round_.sequences[b].num_generated + len(path)
        expected = round_.processor(logits, owner, np.array([generated]))
        assert torch.equal(found[row], expected[0])
        for token in path.tolist():
            round_.processor.retract(owner, np.array([token]))


def test_nothing_is_left_of_what_ended_or_was_decided():
    round_ = round_of(chains((1, 2), (1, 2), (3,)), max_tokens=3)
    round_.sequences[1].finish_reason = "stop"
    commits = match(round_)
    assert set(undecided(round_, commits).owners) <= {0, 2}


@pytest.mark.usefixtures("little_noise_ahead")
def test_maximal_coupling_keeps_a_guess_as_often_as_it_can():
    """It stays with chance sum of min(p, q), and the new guess has the law of p."""
    count = 2000
    p_logits, q = torch.tensor([1.0, 0.0, -1.0, 0.5, 0.2, -2.0]), torch.ones(VOCAB) / VOCAB
    dice = np.random.default_rng(0)
    drafts = [
        chain_draft(dice.integers(0, VOCAB, 2).astype(np.int64), q.expand(2, -1))
        for _ in range(count)
    ]
    round_ = round_of(drafts)
    for b in range(count):  # the node of the second guess
        round_.logits[round_.starts[b] + 1] = p_logits
    commits = match(round_)
    left = undecided(round_, commits)
    tokens, probs = drawn(round_, left, "maximal")
    second = np.flatnonzero(left.nodes == 1)
    p = p_logits.softmax(-1)
    torch.testing.assert_close(probs[second[0]], p)
    was = np.array([drafts[b].tokens[1] for b in left.owners[second]])
    stayed = (tokens[second] == was).mean()
    assert stayed == pytest.approx(float(torch.minimum(p, q).sum()), abs=0.04)
    frequencies = np.bincount(tokens[second], minlength=VOCAB) / len(second)
    np.testing.assert_allclose(frequencies, p.numpy(), atol=0.04)


def sequence_of(prompt, generated=(), seed=0):
    made = Sequence(Request(id="a", prompt=prompt, sampling=Sampling(max_tokens=99), seed=seed))
    for token in generated:
        made.append(token)
    return made


def fill(rule, sequence, depth, known=(), row_length=4):
    start = Start(rule=rule, row_length=row_length)
    return start.fill(sequence, np.array(known, dtype=np.int64), depth, 100).tolist()


def test_first_guesses_repeat_the_left_neighbour():
    assert fill("left", sequence_of((7,)), 3) == [7, 7, 7]
    assert fill("left", sequence_of((7,), (1, 2)), 4, known=(5, 6)) == [5, 6, 6, 6]
    assert fill("left", sequence_of((7,), (1, 2)), 1, known=(5, 6)) == [5]


def test_first_guesses_copy_the_place_above():
    generated = (1, 2, 3, 4, 5, 6)
    assert fill("above", sequence_of((7,), generated), 4) == [3, 4, 5, 6]
    assert fill("above", sequence_of((7,), generated), 5, known=(50,)) == [50, 4, 5, 6, 50]
    assert fill("above", sequence_of((7,), (1, 2)), 4) == [2, 2, 1, 2]  # in the first row: left


def test_a_condition_is_never_a_guess():
    for rule in ("left", "above", "uniform"):
        found = fill(rule, sequence_of((100,), seed=5), 50)
        assert 0 <= min(found) <= max(found) < 100
    assert fill("left", sequence_of((100,), seed=5), 9) == 9 * fill(
        "uniform", sequence_of((100,), seed=5), 1
    )


def test_uniform_guesses_differ_by_seed_and_position():
    found = [t for seed in range(200) for t in fill("uniform", sequence_of((1,), seed=seed), 20)]
    counts = np.bincount(found, minlength=100)
    assert counts.min() > 10
    assert counts.max() < 80


def test_every_guess_carries_what_it_was_drawn_from():
    drafter = JacobiDrafter("fresh", Start(rule="left"))
    drafts = chains((1, 1, 2, 2), (2, 2, 2))
    round_ = round_of(drafts)
    drafter.observe(round_, match(round_))
    noise = RoundNoise(round_.sequences, NoiseStore(VOCAB, CPU))
    context = DraftContext(round_.processor, noise, np.arange(2), sampled=True)
    carried = [len(drafter._windows[s.id].tokens) for s in round_.sequences]
    assert min(carried) > 0
    made = drafter.propose(round_.sequences, Shape(depth=5), context)
    for draft, known in zip(made, carried, strict=True):
        drawn_from = draft.probs.gather(1, torch.from_numpy(draft.tokens)[:, None])[:, 0]
        assert draft.probs.shape == (5, VOCAB)
        assert torch.allclose(draft.probs.sum(-1), torch.ones(5))
        assert (drawn_from[:known] > 0).all()
        assert (drawn_from[:known] < 1).all()
        assert (drawn_from[known:] == 1).all()  # first guesses: one-hot
