"""The flow map as the map of requests: one output under every way of decoding, of the map's law."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.batch import chain
from models.drafting.draft import NOTHING, Shape
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.drafting.sizing.sizing import FixedSize
from models.errors import InvalidRequest
from models.loop.token_loop import TokenLoop
from models.registry import FLOW, GUMBEL, MAPS
from models.requests.request import Request, Sampling
from models.sampling.flow import NAME, FlowMap, _noise_of_rows, flow_noise
from models.sampling.maps import Maps
from models.students.sample import image_noise
from tests.models.looping import loop_of, request_of
from tests.models.test_machines import next_scale, raster

SIZE = 16


@pytest.fixture(scope="module")
def target():
    return raster().inner


def requests_of(target, count=6, noise=FLOW, size=SIZE, **settings):
    return [
        Request(
            id=str(i), prompt=(target.vocab_size + i % 3,), seed=i, noise=noise,
            sampling=Sampling(max_tokens=size, **settings),
        )
        for i in range(count)
    ]  # fmt: skip


def run(target, drafter, requests, *, rows, window=5, size=SIZE):
    shape = NOTHING if drafter is None else Shape(depth=window)
    loop = TokenLoop(
        target, drafter, FixedSize(shape), rows=rows, max_length=1 + size, scratch=1 + window
    )
    return {result.id: result.tokens for result in loop.run(requests)}


def by_hand(target, request):
    """Place by place, with the noise that students read."""
    chart = FlowMap(target.codes)
    noise = image_noise([request.seed], SIZE, chart.width)[0]
    cache, tokens = target.new_cache(1, SIZE + 1), list(request.prompt)
    for place in range(SIZE):
        scores = target.score(cache, chain(0, np.array(tokens[-1:]))).logits
        cache.commit(0, np.array([0]))
        tokens += chart(scores.softmax(-1), noise[place : place + 1]).tolist()
    return tuple(tokens[1:])


def test_the_registry_has_it_by_its_name():
    assert FLOW == NAME
    assert FLOW in MAPS


@pytest.mark.usefixtures("arithmetic")
def test_tokens_are_the_maps_of_each_place():
    target = raster().inner
    requests = requests_of(target, count=2)
    assert run(target, None, requests, rows=2) == {r.id: by_hand(target, r) for r in requests}


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 9}, {"top_p": 0.8}])
def test_jacobi_gives_the_tokens_of_plain_decoding(target, settings):
    requests = requests_of(target, **settings)
    jacobi = JacobiDrafter("shared", Start(rule="left"))
    assert run(target, jacobi, requests, rows=4) == run(target, None, requests, rows=1)


def test_a_next_scale_target_takes_it_too():
    target = next_scale().inner
    requests = requests_of(target, count=5, size=30)
    found = run(target, None, requests, rows=3, size=30)
    assert found == run(target, None, requests, rows=1, size=30)
    plain = run(target, None, requests_of(target, count=5, size=30, noise=GUMBEL), rows=3, size=30)
    assert all(found[name] != plain[name] for name in found)


def test_a_token_without_probability_is_never_chosen(target):
    values = torch.full((400, target.vocab_size), -torch.inf)
    values[:, [3, 7]] = torch.tensor([0.0, 1.0])
    tokens = Maps(target)[FLOW](values, np.arange(400), np.full(400, 5))
    counts = np.bincount(tokens, minlength=target.vocab_size)
    assert counts[3] + counts[7] == 400
    assert counts[7] / 400 == pytest.approx(0.731, abs=0.08)


def test_noise_that_is_drawn_ahead_is_the_positions_own(target):
    """Rows of several requests, at both sides of what is drawn together."""
    seeds, positions = np.array([7, 3, 7, 7]), np.array([64, 200, 63, 0])
    found = _noise_of_rows(seeds, positions, 7)
    assert torch.equal(found, flow_noise(seeds, positions, 7))


def test_a_target_without_a_codebook_is_refused():
    with pytest.raises(InvalidRequest, match="noise='flow:K20:v1' is not accepted: gumbel: the ta"):
        loop_of().submit(replace(request_of(1), noise=FLOW))
