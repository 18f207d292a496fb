"""A Jacobi window kept by a draft actor: the same tokens, also when it loses it or is killed."""

from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from actors.drafts.draft import DraftActor
from actors.pool.pool import TargetPool
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.engine import EngineConfig, build_loop
from models.errors import InvalidOption
from models.requests.request import Request, Sampling
from models.training.raster import RasterConfig, RasterModel
from tests.actors.test_pool import CPUS, awaited, killer, run
from tests.actors.test_remote_drafter import TEAM, actor, carried, direct, remote
from tests.actors.test_remote_drafter import run as run_table

JACOBI = replace(TEAM, name="jacobi", deterministic=True, by_choices=True, max_width=1)


def window(start: str = "left") -> JacobiDrafter:
    return JacobiDrafter("shared", Start(rule=start, row_length=3))


@pytest.fixture(scope="module")
def sequential():
    return run_table(None)[0]


@pytest.mark.parametrize("start", ["left", "above", "uniform"])
@pytest.mark.parametrize("rows", [1, 4])
def test_guesses_as_well_as_beside_the_target(sequential, start, rows):
    near_tokens, near = run_table(window(start), rows=rows)
    far = remote(direct(actor(drafter=window(start))), team=JACOBI)
    far_tokens, loop = run_table(far, rows=rows)
    assert far_tokens == near_tokens == sequential
    assert loop.figures().accepted == near.figures().accepted > 8
    assert loop.figures().drafted == near.figures().drafted


def test_without_the_target_s_choices_the_window_is_begun_again(sequential):
    told = remote(direct(actor(drafter=window())), team=JACOBI)
    untold = remote(direct(actor(drafter=window())), team=replace(JACOBI, by_choices=False))
    accepted = []
    for drafter in (told, untold):
        tokens, loop = run_table(drafter)
        assert tokens == sequential
        accepted.append(loop.figures().accepted)
    assert accepted[0] > accepted[1] > 0


def test_a_draft_actor_that_forgets_and_garbles(sequential):
    """Every third ask finds an actor that has lost everything, every fifth garbled choices."""
    asked, at_work = [0], [actor(drafter=window())]

    def send(ask):
        asked[0] += 1
        if asked[0] % 3 == 0:
            at_work[0] = actor(drafter=window())
        if asked[0] % 5 == 0:
            growths = tuple(replace(g, choices=np.arange(9)) for g in ask.growths)
            ask = replace(ask, growths=growths)
        future: Future = Future()
        future.set_result(carried(at_work[0].draft(carried(ask))))
        return future

    tokens, loop = run_table(remote(send, team=JACOBI))
    assert tokens == sequential
    assert loop.figures().accepted > 0


def test_an_ended_request_s_window_is_dropped():
    drafter = window()
    far = remote(direct(actor(rows=32, drafter=drafter)), team=JACOBI)
    run_table(far)
    assert len(drafter._windows) <= 4
    assert not far._choices


# On a cluster, from a checkpoint

RASTER = RasterConfig(
    vocab_size=24, code_width=4, num_classes=3, grid_width=6, grid_height=6,
    width=32, inner_width=48, num_layers=2, num_heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def jacobi(tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    """An image target under guidance, decoded by windows of 8."""
    folder = tmp_path_factory.mktemp("raster")
    torch.manual_seed(3)
    model = RasterModel(RASTER, F.normalize(torch.randn(24, 4), dim=-1))
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.25)
    model.save(folder, torch.float32)
    return EngineConfig(
        target=str(folder), drafter="jacobi", draft_tokens=8, start="above", batch_size=4,
        guidance=2.0, device="cpu", threads=1,
    )  # fmt: skip


def images(count: int) -> list[Request]:
    sampling = [Sampling(max_tokens=36), Sampling(max_tokens=36, top_k=6, temperature=0.8)]
    return [
        Request(id=f"r{i}", prompt=(24 + i % 3,), sampling=sampling[i % 2], seed=i)
        for i in range(count)
    ]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_killed_actors_change_no_grid(jacobi):
    plain = replace(jacobi, drafter="none", start="left", batch_size=1)
    with torch.inference_mode():
        expected = {r.id: r.tokens for r in build_loop(plain).run(images(40))}
    with TargetPool.start(
        jacobi, target_actors=1, draft_actors=1, num_cpus=CPUS, draft_patience=20.0
    ) as pool:
        assert run(pool, images(8)) == {f"r{i}": expected[f"r{i}"] for i in range(8)}
        assert pool.figures().accepted > 0
        for role in ("draft", "target"):
            before = pool.pids()
            assert run(pool, images(40), disturb=killer(role)) == expected
            awaited(pool, lambda before=before: len(pool.pids()) == 2 and pool.pids() != before)
        accepted = pool.figures().accepted
        assert run(pool, images(40)) == expected
        assert pool.figures().accepted > accepted  # the new one drafts


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("drafter", ["sjd", "mc-sjd"])
def test_windows_with_distributions_stay_beside_the_target(jacobi, drafter):
    with pytest.raises(InvalidOption, match=f"draft_actors=1 .*: 0 with {drafter}"):
        TargetPool.start(replace(jacobi, drafter=drafter), draft_actors=1, num_cpus=CPUS)


def test_a_draft_actor_needs_only_the_grid_s_width(jacobi):
    """It reads the target's configuration, not its weights."""
    told = DraftActor().start(jacobi, rows=4)
    assert told["by_choices"]
    assert told["parameters"] is None
    assert told["vocabulary"] is None
