"""Teachers without Ray: what is waited for is told, and which nodes' stores hold their answers."""

import logging

import pytest

from actors.errors import PoolFailed
from actors.pool.places.role import Role
from actors.teachers import await_all, room_on
from cluster.placement.placement import Node
from cluster.placement.roles import LABEL, selector

GIB = 2**30


def node(size: float, group: str | None = None) -> Node:
    labels = {} if group is None else {LABEL: group}
    return Node(name="n", has={"object_store_memory": size}, labels=labels)


def room(*nodes: Node) -> int | None:
    labels = [selector(role, [each.labels for each in nodes]) for role in ("target", "trainer")]
    return room_on(nodes, labels)


def test_the_smallest_store_of_nodes_that_teachers_or_workers_use() -> None:
    sizes = (node(4 * GIB, "target"), node(2 * GIB, "target"))
    assert room(*sizes, node(GIB, "head"), node(GIB / 2, "data")) == int(0.3 * 2 * GIB)
    assert room(node(4 * GIB), node(GIB)) == int(0.3 * GIB)  # without labels, they may use any


def test_it_is_unknown_while_there_is_no_such_node() -> None:
    assert room(node(GIB, "head")) is None


def test_what_is_waited_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    looks, asked = [2, 1, 0], []

    def look(patience_s: float) -> int:
        asked.append(patience_s)
        return looks[len(asked) - 1]

    with caplog.at_level(logging.WARNING):
        await_all(Role(name="teacher", num_cpus=2.0), look, lambda: "1 CPU")
    told = "waiting for 2 teacher actors with 2 CPU each to start since 0 s; free now: 1 CPU"
    assert [record.getMessage() for record in caplog.records] == [
        told,
        told.replace("2 teacher actors", "1 teacher actor"),
    ]
    assert asked == [30.0] * 3


def test_teachers_that_never_start_are_not_waited_for_for_ever() -> None:
    role = Role(name="teacher", busy_s=0.0)
    with pytest.raises(PoolFailed, match="1 teacher actor with 1 CPU each did not start within"):
        await_all(role, lambda patience_s: 1, lambda: "0 CPU")
