"""What each actor takes of a machine's memory: an amount as it is, of a share its part."""

from types import SimpleNamespace

import pytest

from actors.pool import start
from actors.pool.places.sharing import share_memory
from actors.pool.pool import TargetPool
from cluster.placement import placement
from cluster.placement.placement import Demand, Node
from models.engine_config import EngineConfig

TWO, BIG = Node(name="two", has={"CPU": 2.0}), Node(name="big", has={"CPU": 16.0, "GPU": 2.0})


def actors(count, name="target", **each):
    return Demand(name=name, count=count, each=each or {"CPU": 1.0})


@pytest.mark.parametrize(
    ("nodes", "demands", "among"),
    [
        ([BIG], [actors(1)], 1),
        ([BIG], [actors(4)], 4),
        ([TWO, TWO], [actors(4)], 2),  # no node holds more
        ([TWO, BIG], [actors(4)], 4),  # one may hold all of them
        ([BIG], [actors(2), actors(3, "draft")], 5),
        ([BIG, BIG], [actors(4, CPU=8.0)], 2),
        ([], [actors(3)], 3),  # nodes that are about to join
        ([BIG], [actors(2, CPU=1.0, GPU=1.0)], 1),
        ([BIG], [actors(4, CPU=1.0, GPU=0.5)], 2),
        ([BIG], [actors(2, GPU=1 / 3), actors(1, "draft", GPU=1 / 3)], 3),
    ],
)
def test_a_share_is_divided_by_the_actors_on_a_node_or_gpu(nodes, demands, among):
    config = EngineConfig(target="t")
    found = share_memory(config, demands, nodes)
    assert float(found.memory or 0.5) == pytest.approx(0.5 / among)
    shared = share_memory(EngineConfig(target="t", memory=0.9), demands, nodes)
    assert float(shared.memory) == pytest.approx(0.9 / among)
    fixed = EngineConfig(target="t", memory="8GiB")
    assert share_memory(fixed, demands, nodes) == fixed


def test_parts_of_a_gpu_do_not_count_on_the_cpu():
    config = EngineConfig(target="t", device="cpu")
    found = share_memory(config, [actors(2, CPU=1.0, GPU=0.5)], [BIG])
    assert float(found.memory) == pytest.approx(0.25)


def test_each_rank_of_a_target_has_a_cache():
    config = EngineConfig(target="t", tensor_parallel=4)
    found = share_memory(config, [actors(2, CPU=4.0)], [BIG])
    assert float(found.memory) == pytest.approx(0.5 / 8)
    found = share_memory(config, [actors(1, CPU=4.0, GPU=4.0)], [BIG])  # each on its GPU
    assert float(found.memory or 0.5) == pytest.approx(0.5)


def test_a_tiny_share_stays_a_share():
    found = share_memory(EngineConfig(target="t", memory="0.00004"), [actors(4)], [BIG])
    assert float(found.memory) == pytest.approx(1e-5)


@pytest.mark.parametrize(("drafter", "among"), [("none", 3), ("lookup", 3), ("a/draft/model", 5)])
def test_a_pool_divides_among_all_actors_that_keep_a_cache(monkeypatch, drafter, among):
    started = []
    monkeypatch.setattr(start, "ray", SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setattr(start, "alive_nodes", lambda: [BIG])
    monkeypatch.setattr(placement, "alive_nodes", lambda: [BIG])

    def note(config, *others, **options):
        started.append(config)
        return None, None

    monkeypatch.setattr(start, "start_all", note)
    config = EngineConfig(target="t", drafter=drafter, batch_size=2)
    TargetPool.start(config, target_actors=1, max_target_actors=3, draft_actors=2)
    assert float(started[0].memory) == pytest.approx(0.5 / among)
