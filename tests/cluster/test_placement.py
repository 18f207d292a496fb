"""Room is counted node by node and GPU by GPU."""

import math

import pytest

from cluster.placement.placement import Demand, Node, _scales, gpu_share, shortage


def node(name: str = "a", **has: float) -> Node:
    return Node(name=name, has=has)


def targets(count: int, **each: float) -> Demand:
    return Demand(name="target", count=count, each=each)


def drafts(count: int, **each: float) -> Demand:
    return Demand(name="draft", count=count, each=each)


@pytest.mark.parametrize(
    ("demands", "nodes"),
    [
        ([targets(2, CPU=1, GPU=1)], [node(CPU=4, GPU=2)]),
        ([targets(4, CPU=1, GPU=0.5)], [node(CPU=4, GPU=2)]),
        ([targets(3, GPU=0.3333)], [node(GPU=1)]),
        ([targets(10, CPU=0.1)], [node(CPU=1)]),
        ([targets(2, CPU=2, fast=1)], [node(CPU=4, fast=1), node("b", CPU=2, fast=1)]),
        ([targets(1, CPU=1, GPU=2)], [node(CPU=1, GPU=1), node("b", CPU=1, GPU=2)]),
        ([targets(1, CPU=1, GPU=1), drafts(1, CPU=8)], [node(CPU=8, GPU=1), node("b", CPU=8)]),
        ([drafts(1, CPU=8), targets(1, CPU=1, GPU=1)], [node(CPU=8, GPU=1), node("b", CPU=8)]),
        ([targets(2, GPU=0.5), drafts(1, GPU=1)], [node(GPU=2)]),
        ([targets(1, GPU=0.5)], [node(GPU=0.5)]),
        ([targets(1, GPU=0.5), drafts(1, GPU=1)], [node(GPU=1.5)]),
        ([targets(1)], [node()]),
    ],
)
def test_there_is_room(demands, nodes):
    assert shortage(demands, nodes) is None


@pytest.mark.parametrize(
    ("demands", "nodes", "fits"),
    [
        ([targets(3, GPU=2 / 3)], [node(GPU=2)], "2 target actors"),
        ([targets(3, CPU=1, GPU=1)], [node(CPU=4, GPU=2)], "2 target actors"),
        ([targets(2, CPU=3)], [node(CPU=2), node("b", CPU=4)], "1 target actor"),
        ([targets(1, CPU=8)], [node(CPU=4), node("b", CPU=4)], "0 target actors"),
        ([targets(1, GPU=1)], [node(CPU=4)], "0 target actors"),
        ([targets(1, fast=1)], [node(CPU=4)], "0 target actors"),
        ([targets(2, GPU=1), drafts(1, GPU=1)], [node(GPU=2)], "2 target actors and 0 draft"),
        ([targets(1, CPU=1)], [], "0 target actors"),
    ],
)
def test_there_is_none(demands, nodes, fits):
    assert f"the nodes can hold {fits}" in (shortage(demands, nodes) or "")


def test_the_message_names_what_is_asked_for_and_what_there_is():
    two = [node("10.0.0.1", CPU=4, GPU=2, memory=9e9), node("10.0.0.2", CPU=8)]
    assert shortage([targets(3, CPU=1, GPU=0.75), drafts(1, CPU=1)], two) == (
        "no room for 3 target actors with 1 CPU and 0.75 GPU each and 1 draft actor with 1 CPU "
        "each: the nodes can hold 2 target actors and 1 draft actor. node 10.0.0.1 has 4 CPU and "
        "2 GPU; node 10.0.0.2 has 8 CPU and 0 GPU. A part of a GPU must fit on a single one"
    )


def test_many_nodes_are_not_all_named():
    assert "; 92 more nodes" in (shortage([targets(1, CPU=9)], [node(CPU=1)] * 100) or "")


@pytest.mark.parametrize("gpus", [0.0, 0.5, 1.0, 2.0, 3.0, 8.0])
@pytest.mark.parametrize("actors", range(1, 18))
def test_shares_of_gpus_fit(actors, gpus):
    share = gpu_share(actors=actors, gpus=gpus)
    assert (share == 1.0) == (gpus >= actors)
    if gpus >= 1:
        assert shortage([targets(actors, GPU=share)], [node(GPU=gpus)]) is None
        assert math.floor(1 / share) * gpus < actors + gpus  # and are not smaller than needed


def test_a_cluster_that_scales_is_known_by_the_types_of_its_nodes():
    fixed = {"autoscaler_report": {"active_nodes": {"node_81f0dd": 1}}}
    assert not _scales({}, [{}])
    assert not _scales(fixed, [{"ray.io/node-id": "81f0dd"}])
    assert not _scales({"autoscaler_report": None}, [])
    assert _scales({"autoscaler_report": {"active_nodes": {"head": 1}}}, [{}])
    assert _scales({}, [{"ray.io/node-group": "workers"}])


def test_actors_need_nodes_of_their_role():
    head = Node(name="h", has={"CPU": 8}, labels={"paceline.io/role": "head"})
    data = Node(name="d", has={"CPU": 1}, labels={"paceline.io/role": "data"})
    asked = Demand(name="target", count=1, each={"CPU": 1}, labels={"paceline.io/role": "target"})
    assert shortage([asked], [head, data]) == (
        "no room for 1 target actor with 1 CPU each on nodes labelled paceline.io/role=target: the "
        "nodes can hold 0 target actors. node h (paceline.io/role=head) has 8 CPU; "
        "node d (paceline.io/role=data) has 1 CPU"
    )
    right = Node(name="t", has={"CPU": 1}, labels={"paceline.io/role": "target", "zone": "a"})
    assert shortage([asked], [head, right]) is None
