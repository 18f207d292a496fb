"""Which nodes' object stores hold answers of teachers: without Ray."""

from actors.teachers import room_on
from cluster.placement import Node
from cluster.roles import LABEL, selector

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
