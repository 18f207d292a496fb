"""Where a distillation trains: what is reserved, what "auto" means, and what is refused."""

import pytest

from actors.errors import PoolFailed
from actors.pool.places import placing
from cluster.placement.placement import Node
from pipelines.distill import places
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.places import settled, teacher_gpus
from pipelines.distill.students.config import StudentOptions
from pipelines.distill.train import BACKENDS, scaling
from pipelines.options import from_mapping

GIVEN = {"target": "t", "output": "o"}
STREAM = {**GIVEN, "prompts": "p", "states": "stream"}


@pytest.fixture
def nodes(monkeypatch):
    """The nodes of a cluster that does not grow."""
    found = []
    for module in (places, placing):
        monkeypatch.setattr(module, "alive_nodes", lambda: found)
    monkeypatch.setattr(places, "selector", lambda role: {})
    monkeypatch.setattr(placing, "is_autoscaling", lambda: False)
    monkeypatch.setattr(placing.time, "sleep", lambda seconds: None)
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr(placing.time, "monotonic", lambda: next(clock))
    return found


def node(cpus=8.0, gpus=0.0):
    return Node(name="here", has={"CPU": cpus, "GPU": gpus})


@pytest.mark.parametrize(
    ("device", "gpus", "wanted"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cuda", 2, "cuda"), ("cpu", 2, "cpu")],
)
def test_auto_is_a_gpu_where_the_cluster_has_some(nodes, device, gpus, wanted):
    nodes.append(node(gpus=gpus))
    options = from_mapping(StudentOptions, {**GIVEN, "device": device, "workers": 2})
    assert settled(options) == wanted


@pytest.mark.parametrize(
    ("options", "gpus", "told"),
    [
        ({"device": "cuda"}, 0, "no room for 1 trainer actor with 1 CPU and 1 GPU each: the nodes "
         "can hold 0 trainer actors. node here has 8 CPU and 0 GPU"),
        ({"workers": 2}, 1, "no room for 2 trainer actors with 1 CPU and 1 GPU each: the nodes can "
         "hold 1 trainer actor. node here has 8 CPU and 1 GPU"),
        ({"device": "cpu", "workers": 9}, 1, "no room for 9 trainer actors with 1 CPU each"),
    ],
)  # fmt: skip
def test_what_the_nodes_cannot_hold_is_refused(nodes, options, gpus, told):
    nodes.append(node(gpus=gpus))
    with pytest.raises(PoolFailed) as refused:
        settled(from_mapping(StudentOptions, GIVEN | options))
    assert str(refused.value).startswith(told)


def test_teachers_take_what_the_training_leaves(nodes):
    nodes.append(node(gpus=3))
    options = from_mapping(DrafterOptions, {**STREAM, "workers": 2, "target_actors": 2})
    assert settled(options) == "cuda"
    assert teacher_gpus(options, device="cuda") == 0.5
    assert teacher_gpus(options, device="cpu") == 0
    nodes[:] = [node(gpus=2)]
    with pytest.raises(PoolFailed, match=r"0\.5 GPU each: the nodes can hold 1 trainer actor and"):
        settled(options)


def test_every_worker_has_a_gpu_and_sums_gradients_with_nccl():
    on_gpus, on_cpu = (scaling(d, workers=2, labels={"a": "b"}) for d in ("cuda", "cpu"))
    assert on_gpus.use_gpu
    assert on_gpus.resources_per_worker == {"CPU": 1.0, "GPU": 1}
    assert not on_cpu.use_gpu
    assert on_cpu.resources_per_worker == {"CPU": 1.0}
    assert on_gpus.label_selector == {"a": "b"}
    assert BACKENDS == {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
