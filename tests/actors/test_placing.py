"""What the nodes cannot hold is refused; what others occupy is waited for, and that is logged."""

import re
import subprocess
import sys
import time

import pytest

from actors.errors import PoolFailed
from actors.pool.members import Pool
from actors.pool.places import placing
from actors.pool.places.role import Role
from actors.pool.pool import TargetPool
from cluster.placement.placement import Node
from models.engine_config import EngineConfig
from models.errors import InvalidOption

CPUS = 4  # of the tests' cluster
ray = pytest.mark.ray


class Idle:
    """An actor that does nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self) -> dict[str, object]:
        return {}

    def ping(self) -> str:
        return self.name


def idlers(kind: type = Idle, **settings: object) -> Pool:
    return Pool(Role(name="target", **settings), kind, tuple)


@ray
@pytest.mark.usefixtures("ray_cluster")
def test_what_the_nodes_cannot_hold_is_refused_within_seconds(config):
    began = time.monotonic()
    told = r"no room for 2 target actors with 3 CPU each: the nodes can hold 1 target actor\. "
    with pytest.raises(PoolFailed, match=told + r"node \S+ has 4 CPU"):
        TargetPool.start(config(), target_actors=2, num_cpus=3.0)
    told = r"1 draft actor with 1 CPU and 0.5 GPU each and 1 target actor .* has 4 CPU and 0 GPU"
    with pytest.raises(PoolFailed, match=told):
        TargetPool.start(
            config(drafter="lookup"), draft_actors=1, num_cpus=1.0, num_gpus=0.5, draft_gpus=0.5
        )
    assert time.monotonic() - began < 2 * Role(name="target").place_s + 5


@ray
@pytest.mark.usefixtures("ray_cluster")
def test_what_others_use_is_waited_for_and_told(monkeypatch, caplog):
    monkeypatch.setattr("actors.pool.places.placing.TELL_EVERY_S", 1.0)
    holder, waiting = idlers(num_cpus=CPUS), idlers(num_cpus=2, busy_s=3.0)
    holder.start()
    began = time.monotonic()
    with pytest.raises(PoolFailed, match="no place for 1 target actor with 2 CPU each within"):
        waiting.start()
    assert 3 <= time.monotonic() - began < 10
    assert "waiting for 1 target actor with 2 CPU each to start" in caplog.text
    assert "free now: 0 CPU" in caplog.text
    assert not waiting.members
    holder.stop()


@pytest.mark.parametrize(("started", "waits_s"), [(False, 5.0), (True, 1800.0)])
def test_a_lost_node_is_waited_for_longer_than_one_that_never_was(
    started, waits_s, monkeypatch, caplog
):
    now = [0.0]
    monkeypatch.setattr(placing.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(placing, "alive_nodes", lambda: [Node(name="head", has={"CPU": 0.0})])
    monkeypatch.setattr(placing, "is_autoscaling", lambda: False)
    monkeypatch.setattr(placing.ray, "available_resources", dict)
    waiting = placing.Placing(Role(name="target"), started=started)

    def wait() -> None:
        while True:
            waiting.check(1, 1)
            now[0] += 1.0

    with pytest.raises(PoolFailed, match="the nodes can hold 0 target actors"):
        wait()
    assert waits_s <= now[0] <= waits_s + 2
    if started:
        assert caplog.text.count("to start since") == waits_s // 30 - 1
        assert "no room for 1 target actor with 1 CPU each" in caplog.text


def test_a_pool_says_what_it_lacks(monkeypatch):
    """Where nodes are missing at once; where others use them after half a minute."""
    now, nodes = [0.0], [Node(name="head", has={"CPU": 0.0})]
    monkeypatch.setattr(placing.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(placing, "alive_nodes", lambda: nodes)
    monkeypatch.setattr(placing, "is_autoscaling", lambda: False)
    monkeypatch.setattr(placing.ray, "available_resources", dict)
    pool = idlers()
    assert pool.lack is None
    pool._placing = placing.Placing(pool.role, started=True)
    now[0] = 2.0
    pool._placing.check(1, 1)
    assert "no room for 1 target actor" in str(pool.lack)
    nodes[0] = Node(name="head", has={"CPU": 4.0})
    now[0] = 4.0
    pool._placing.check(1, 1)
    assert pool.lack is None
    now[0] = 40.0
    pool._placing.check(1, 1)
    assert pool.lack == "1 target actor with 1 CPU each found no place for 40 s"
    assert TargetPool(EngineConfig(target="t"), pool).state().lack == pool.lack


def test_a_part_of_several_gpus_is_refused():
    with pytest.raises(InvalidOption, match="target_num_gpus"):
        Role(name="target", num_gpus=1.5)


def test_without_ray_nothing_is_started(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(PoolFailed, match="not connected to a Ray cluster"):
        idlers().start()


@pytest.mark.slow
def test_three_actors_on_two_gpus():
    """Two thirds of a GPU each are refused, halves fit; a pool can be stopped after Ray."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.actors.gpus"], capture_output=True, text=True, timeout=200
    )
    refused, fits, stopped = done.stdout.splitlines()[-3:]
    found = re.match(r"refused after (\d+) s: no room for 3 target actors with 0.5 CPU", refused)
    assert found is not None
    assert int(found[1]) < 30  # 5 s, on a machine that is not busy
    assert "hold 2 target actors" in refused
    assert "has 2 CPU and 2 GPU. A part of a GPU must fit on a single one" in refused
    assert fits == "3 actors with 0.5 GPU each"
    assert stopped == "after shutdown and stop: Ray is not running"
