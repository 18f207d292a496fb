"""A rank that Ray gives no process, though its target's placement group has room for it."""

import threading
import time

import pytest
import ray

from actors import ranks
from actors.errors import RankLost
from actors.ranks import RankActor, Ranks
from cluster.placement.ranks import placed_in, release, reserve
from tests.actors.test_placing import Idle

WITHIN_S, SLOW_S = 60.0, 20.0


@pytest.fixture
def group(monkeypatch, ray_cluster):
    """For two ranks; this process is the first one."""
    made = reserve({"CPU": 1.0}, 2, {})
    monkeypatch.setattr(ranks, "get_current_placement_group", lambda: made)
    ray.get(made.ready(), timeout=WITHIN_S)
    yield made
    release(made)


class Heard:
    """What the ranks have told of a loss."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.told = threading.Event()

    def __call__(self, error: Exception) -> None:
        self.error = error
        self.told.set()


class Slow(RankActor):
    """Its process is there long before it can be called."""

    def __init__(self) -> None:
        time.sleep(SLOW_S)


@pytest.mark.ray
def test_its_target_is_told(group, config, monkeypatch):
    monkeypatch.setattr(ranks, "PLACED_S", 1.0)
    holder = ray.remote(Idle).options(num_cpus=1, **placed_in(group, 1)).remote("other")
    ray.get(holder.ping.remote(), timeout=WITHIN_S)
    heard = Heard()
    Ranks(config(tensor_parallel=2), name="target-0", on_lost=heard)
    assert heard.told.wait(WITHIN_S)
    assert isinstance(heard.error, RankLost)
    told = "target-0, rank 1: found no place for 1 s in its target's group"
    assert str(heard.error) == told


@pytest.mark.ray
def test_one_whose_process_starts_slowly_has_one(group, config, monkeypatch):
    monkeypatch.setattr(ranks, "RankActor", Slow)
    started = Ranks(config(tensor_parallel=2), name="target-0", on_lost=Heard())
    deadline = time.monotonic() + WITHIN_S
    while started._without_process() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not ray.wait(started._pids, timeout=0)[0]  # nobody has asked the process itself
