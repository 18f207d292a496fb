"""Teacher-mixed sampling: the target decodes a range of a student's tokens anew."""

from pathlib import Path

import pytest
import torch

from actors.student import Mix, StudentActor
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.registry import FLOW
from models.requests.request import Request, Sampling
from models.students.checkpoint import load_student

MODELS = Path(__file__).parents[3] / "examples" / "models"
TARGETS = {name: str(MODELS / name) for name in ("digits-raster", "digits-scale")}
SEEDS = (3, 8, 21)


def requests(target: str) -> list[Request]:
    config = load_student(f"{target}-student").config
    return [
        Request(
            id=str(i),
            prompt=(config.vocab_size + i,),
            sampling=Sampling(max_tokens=config.num_tokens),
            seed=seed,
            noise=FLOW,
        )
        for i, seed in enumerate(SEEDS)
    ]


def images(target: str, *, steps: int = 1, mix: tuple[int, int] | None = None) -> torch.Tensor:
    """[B, n] tokens of the shipped student."""
    given = mix and Mix(teacher=target, first=mix[0], last=mix[1], batch_size=2)
    actor = StudentActor(f"{target}-student", steps, 1, mix=given or None)
    _, results = actor.run(requests(target))
    return torch.tensor([result.tokens for result in results])


def cuts(target: str) -> tuple[int, ...]:
    config = load_student(f"{target}-student").config
    return (0, *config.bounds, config.num_tokens)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_range_of_all_tokens_gives_the_target_s_images(target: str) -> None:
    loop = build_loop(EngineConfig(target=target, batch_size=2, threads=1, device="cpu"))
    whole = {result.id: result.tokens for result in loop.run(requests(target))}
    expected = torch.tensor([whole[str(i)] for i in range(len(SEEDS))])
    assert images(target, mix=(0, cuts(target)[-1])).equal(expected)
    assert not images(target).equal(expected)  # the student's own are others


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_tokens_before_the_range_are_the_student_s(target: str) -> None:
    places = cuts(target)
    first, last = places[len(places) // 3], places[len(places) // 2]
    alone, mixed = images(target), images(target, mix=(first, last))
    assert mixed[:, :first].equal(alone[:, :first])
    assert not mixed[:, first:last].equal(alone[:, first:last])
    more = images(target, mix=(first, places[-1]))  # the target goes on to the end
    assert mixed[:, :last].equal(more[:, :last])
    assert not mixed[:, last:].equal(more[:, last:])
    assert not mixed[:, last:].equal(alone[:, last:])  # decided again


def test_the_accepted_length_counts_all_passes() -> None:
    target = TARGETS["digits-raster"]
    mix = Mix(teacher=target, first=8, last=20, batch_size=4)
    _, results = StudentActor(f"{target}-student", 2, 1, mix=mix).run(requests(target))
    assert {result.accepted_length for result in results} == {64 / (2 + 12 + 1)}
