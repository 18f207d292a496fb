"""Ranks of a target and workers of a training log under names of their own."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from actors import ranks, trainer
from actors.ranks import RankActor
from actors.trainer import Training, train_worker
from cluster import logs
from models.training.engines.worker import Worker
from models.training.step import TrainingPlan
from tests.cluster.test_logs import restored

__all__ = ["restored"]  # a fixture that is used everywhere
Lines = Callable[[int], list[dict[str, Any]]]
pytestmark = pytest.mark.skipif(
    not hasattr(logs.socket, "SO_PASSCRED"), reason="needs Linux's credentials"
)


@pytest.fixture
def lines(restored: None, capfd: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """As many lines as are asked for, as the command prints them."""
    logs.choose("info", "json")
    logs.set_up_command()

    def read(count: int) -> list[dict[str, Any]]:
        found, deadline = list[str](), time.monotonic() + 20
        while len(found) < count and time.monotonic() < deadline:
            said = capfd.readouterr().err.splitlines()
            found += [line for line in said if line.startswith("{")]  # libraries may warn
            time.sleep(0.01)
        return [json.loads(line) for line in found]

    yield read
    for handler in logging.getLogger().handlers:
        if handler.name == logs.NAME:
            handler.close()


def test_a_rank_says_that_it_is_ready(config, lines: Lines, monkeypatch) -> None:
    def part_of(*_: object) -> Callable[[], None]:
        return partial(logging.getLogger("models").info, "it follows")

    monkeypatch.setattr(ranks, "part_of", part_of)
    RankActor().follow(config(), "meeting", 1, "target-0-rank-1")
    told = lines(2)
    assert {each["process"] for each in told} == {"target-0-rank-1"}
    messages = [each["message"] for each in told]
    assert messages == ["target-0-rank-1 is ready", "it follows"]
    assert told[0]["target"] == config().target


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second of three workers, whose settings of torch do not stay."""
    context = SimpleNamespace(get_world_rank=lambda: 1, get_world_size=lambda: 3)
    monkeypatch.setattr(trainer.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode: None)


@pytest.mark.usefixtures("in_this_process")
def test_a_worker_tells_why_the_training_stops(lines: Lines, tmp_path: Path) -> None:
    def build(worker: Worker) -> Any:
        raise ValueError(f"no lessons for {worker.rank}")

    training = Training(
        folder=str(tmp_path),
        build=build,
        plan=TrainingPlan(steps=1, batch=1, rate=1e-3, seed=3),
        save_every=1,
        exam_every=1,
        threads=1,
        agreed={},
    )
    with pytest.raises(ValueError, match="no lessons for 1"):  # others would wait for it
        train_worker({"training": training})
    (told,) = lines(1)
    assert (told["process"], told["level"]) == ("trainer-1", "error")
    assert "ValueError: no lessons for 1" in told["exception"]
