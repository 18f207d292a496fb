"""Maps from noise to tokens: any of them gives one output, however tokens are guessed ahead."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.drafts.draft import DraftActor
from actors.drafts.remote_drafter import RemoteDrafter
from actors.messages import DraftTeam
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.drafting.sizing.sizing import FixedSize
from models.errors import InvalidOption, InvalidRequest
from models.loop.replay import first_difference
from models.loop.token_loop import TokenLoop
from models.registry import GUMBEL, MAPS
from models.requests.request import Request, Sampling
from models.sampling.maps import Maps
from models.sampling.noise import uniform
from tests.actors.test_remote_drafter import direct
from tests.models.bags import PROMPT, SIZE, BagTarget, Diagonals, feed_diagonal
from tests.models.enumerated import CONDITION, LENGTH, HistoryTarget, fit, joint
from tests.models.looping import (
    DRAFT_MODEL,
    DRAFTERS,
    TARGET,
    VOCAB,
    loop_of,
    request_of,
    run_alone,
    tokens_of,
)
from tests.models.toys import quantile_map

TOY = "quantile"


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(MAPS, TOY, "tests.models.toys:quantile_map")


def jacobi():
    return JacobiDrafter("shared", Start(rule="left"))


def far():
    """A draft model in a draft actor."""
    made = DraftActor()
    made.serve(ModelDrafter(DRAFT_MODEL, rows=8, capacity=160), rows=8, max_length=100)
    drafter = RemoteDrafter(DraftTeam(name="model", max_width=8, patience=1e6), client="target-0")
    drafter.connect({"draft-0": direct(made)})
    return drafter


ALL = {
    **DRAFTERS,
    "jacobi": (jacobi, Shape(depth=5)),
    "far": (far, Shape(depth=3)),
    "far tree": (far, Shape(depth=3, width=3)),
}


def requests_of(*names, count=40):
    """Requests with every sampling option; request i uses the map names[i % len(names)]."""
    return [replace(request_of(i), noise=names[i % len(names)]) for i in range(count)]


@pytest.mark.parametrize("names", [(TOY,), (TOY, GUMBEL, TOY)], ids=["toy", "mixed"])
@pytest.mark.parametrize("drafter", ALL)
def test_tokens_are_those_of_plain_decoding(arithmetic, drafter, names):
    requests = requests_of(*names)
    loop = loop_of(ALL[drafter], rows=8, chunk=8)
    results = loop.run(requests)
    assert tokens_of(results) == tokens_of(run_alone(requests))
    assert {result.exactness for result in results} == {"identical"}
    if drafter != "none":
        assert loop.figures().accepted > 8


def test_maps_differ(arithmetic):
    """What the test above compares is not one output again and again; greedy requests have one."""
    requests = requests_of(TOY)
    gumbel = [replace(request, noise=GUMBEL) for request in requests]
    mine, others = (tokens_of(loop_of(rows=8).run(each)) for each in (requests, gumbel))
    greedy = {r.id for r in requests if r.sampling.temperature == 0}
    assert greedy
    assert all(mine[name] == others[name] for name in greedy)
    assert sum(mine[name] != others[name] for name in mine) > 20


def test_a_draft_model_uses_the_map_too():
    """With the target as its own draft, every chain is accepted as a whole."""
    own = ModelDrafter(TARGET, rows=8, capacity=160)
    sampling = Sampling(max_tokens=30, ignore_eos=True)
    requests = [
        Request(id=str(i), prompt=(1, 2), sampling=sampling, seed=i, noise=TOY) for i in range(8)
    ]
    loop = loop_of((lambda: own, Shape(depth=3)), rows=8)
    loop.run(requests)
    accepted = loop.figures().acceptance_by_position
    assert min(accepted) > 0.9  # the rest are ends


def test_a_request_continues_under_its_map():
    request = Request(
        id="a", prompt=(1, 2), sampling=Sampling(max_tokens=20, ignore_eos=True), seed=3, noise=TOY
    )
    (whole,) = loop_of().run([request])
    for cut in (1, 7, 19):
        (rest,) = loop_of("chain").run([replace(request, generated=whole.tokens[:cut])])
        assert rest.tokens == whole.tokens


def test_the_law_is_the_targets_by_enumeration(little_noise_ahead):
    target = HistoryTarget(seed=4, spread=1.5)
    loop = TokenLoop(
        target, jacobi(), FixedSize(Shape(depth=3)), rows=400, max_length=1 + LENGTH, scratch=4
    )
    sampling = Sampling(max_tokens=LENGTH)
    results = loop.run(
        Request(id=str(i), prompt=(CONDITION,), sampling=sampling, seed=i, noise=TOY)
        for i in range(3000)
    )
    tokens = np.array([result.tokens for result in results])
    assert fit(tokens, joint(target))[1] > 1e-3


def test_the_gumbel_map_is_what_the_processor_computes(arithmetic, monkeypatch):
    monkeypatch.setitem(MAPS, "again", MAPS[GUMBEL])
    requests = requests_of(GUMBEL)
    again = [replace(request, noise="again") for request in requests]
    found, expected = (tokens_of(loop_of(rows=8).run(each)) for each in (again, requests))
    assert found == expected


def test_groups_of_positions_use_the_map():
    target = BagTarget(Diagonals(), feed_diagonal)
    requests = [
        Request(
            id=str(i), prompt=(PROMPT,), sampling=Sampling(max_tokens=SIZE), seed=i,
            noise=(TOY, GUMBEL)[i % 2],
        )
        for i in range(30)
    ]  # fmt: skip

    def run(rows, requests):
        sizes = {"rows": rows, "max_length": 1 + SIZE, "scratch": 8}
        loop = TokenLoop(target, None, FixedSize(NOTHING), **sizes)
        return {result.id: result.tokens for result in loop.run(requests)}

    mixed = run(8, requests)
    assert mixed == run(1, requests)
    gumbel = run(8, [replace(request, noise=GUMBEL) for request in requests])
    differ = {name for name in mixed if mixed[name] != gumbel[name]}
    assert len(differ) > 8
    assert all(int(name) % 2 == 0 for name in differ)


# What is refused


def test_an_unknown_map_is_refused_with_the_known_ones():
    with pytest.raises(
        InvalidRequest, match="'r1': noise='flow' is not known; accepted: gumbel, flow:K20:v1, q"
    ):
        loop_of().submit(replace(request_of(1), noise="flow"))


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_rules_with_numbers_of_their_own_need_gumbel(rule):
    loop = loop_of(rule=rule)
    with pytest.raises(InvalidRequest, match=f"noise='quantile' needs the rule match; {rule}"):
        loop.submit(replace(request_of(1), noise=TOY))
    assert len(loop.run([request_of(1)])) == 1


def test_a_map_that_the_target_does_not_allow_is_refused(monkeypatch):
    monkeypatch.setitem(MAPS, "codes", f"{__name__}:needs_codes")
    with pytest.raises(InvalidRequest, match="'r1': noise='codes' is not accepted: a codebook"):
        loop_of().submit(replace(request_of(1), noise="codes"))


def needs_codes(target):
    raise InvalidOption("noise", "codes", "a codebook is needed")


def test_a_map_is_made_once_for_a_target(monkeypatch):
    made = []
    monkeypatch.setattr(
        "tests.models.toys.quantile_map", lambda t: made.append(t) or quantile_map(t)
    )
    loop_of(rows=2).run(requests_of(TOY, count=6))
    assert made == [TARGET]


def test_only_gumbel_noise_has_ties_to_replay():
    with pytest.raises(ValueError, match="'r1': noise='quantile'; only gumbel"):
        first_difference(TARGET, replace(request_of(1), noise=TOY), (1,), (2,))


def test_the_toy_never_chooses_a_token_of_probability_zero():
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).expand(500, VOCAB)
    tokens = Maps(TARGET)[TOY](probs.log(), np.arange(500), np.full(500, 3))
    assert set(tokens.tolist()) == {1, 3}
    assert uniform(np.zeros(1, dtype=np.uint64)) < 1
