"""Which actors a cluster's nodes have room for, and what part of a GPU each one gets.

An actor needs all its resources on one node, and a part of a GPU on a single GPU: three actors with
two thirds of a GPU each do not fit on two GPUs, though the sums are equal.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from cluster.placement import roles

SMALLEST = 1e-4  # part of a resource that Ray tells apart
MAX_NAMED = 8  # nodes in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """`count` actors of a kind, each with these resources (`CPU`, `GPU` or custom ones).

    `labels`: that their nodes must have.
    """

    name: str
    count: int
    each: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        told = f"{_actors(self.count, self.name)} with {amounts(self.each)} each"
        where = ", ".join(f"{name}={value}" for name, value in self.labels.items())
        return f"{told} on nodes labelled {where}" if where else told


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node, its resources, used or not, and its labels. `id`: Ray's own, in hexadecimal."""

    name: str
    has: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    id: str = ""


def gpus_each(*, actors: int, device: str, whole: bool = False) -> float:
    """GPUs of each of `actors` model actors: a whole one where there are enough, else a part.

    `whole`: never a part.

    `device`: "cpu": none; "cuda": part of one at least, so that the actors wait for a GPU if the
    cluster is about to get one; "auto": of those that there are.
    """
    if device == "cpu":
        return 0.0
    gpus = float(ray.cluster_resources().get("GPU", 0.0))
    if device == "cuda":
        gpus = max(gpus, 1.0)
    if whole:
        return min(gpus, 1.0)
    return gpu_share(actors=actors, gpus=gpus)


def gpu_share(*, actors: int, gpus: float) -> float:
    """A part of a GPU such that as many actors as must share one fit on it."""
    if gpus == 0 or gpus >= actors:
        return min(gpus, 1.0)
    sharing = math.ceil(actors / (math.floor(gpus) or gpus))
    return math.floor(1 / sharing / SMALLEST) * SMALLEST


def alive_nodes() -> list[Node]:
    """The nodes of the cluster that this process is connected to."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [
        Node(
            name=n["NodeManagerAddress"],
            has=n["Resources"],
            labels=n.get("Labels") or {},
            id=n["NodeID"],
        )
        for n in alive
    ]


def free_nodes() -> list[Node]:
    """The same, with the resources that nobody uses, as the cluster's server knew a moment ago."""
    free = available_resources_per_node()
    return [replace(node, has=free.get(node.id, {})) for node in alive_nodes()]


def selector(role: str) -> dict[str, str]:
    """The labels of the nodes that a role may use on the connected cluster; {}: any node."""
    return roles.selector(role, [node.labels for node in alive_nodes()])


def is_autoscaling() -> bool:
    """Whether the cluster's autoscaler may add nodes."""
    from ray.experimental.internal_kv import _internal_kv_get

    status = json.loads(_internal_kv_get("__autoscaling_status") or b"{}")
    return _scales(status, [node.get("Labels", {}) for node in ray.nodes()])


def _scales(status: Mapping[str, Any], labels: Iterable[Mapping[str, str]]) -> bool:
    """Nodes of a fixed cluster have no type of their own: their names stand for it."""
    types = (status.get("autoscaler_report") or {}).get("active_nodes") or {}
    named = any(not name.startswith("node_") for name in types)
    return named or any(found.get("ray.io/node-group") for found in labels)


def shortage(demands: Iterable[Demand], nodes: Iterable[Node]) -> str | None:
    """Why the nodes cannot hold all the actors, even when nothing else runs; None if they can."""
    demands, nodes = list(demands), list(nodes)
    rooms = [_room(order, nodes) for order in permutations(demands)]
    if any(all(room[d.name] == d.count for d in demands) for room in rooms):
        return None
    most = max(rooms, key=lambda room: sum(room.values()))
    asked = " and ".join(map(str, demands))
    fits = " and ".join(_actors(most[demand.name], demand.name) for demand in demands)
    told = f"no room for {asked}: the nodes can hold {fits}. {describe_nodes(demands, nodes)}"
    parts = [d for d in demands if 0 < d.each.get("GPU", 0) < 1]
    return f"{told}. A part of a GPU must fit on a single one" if parts else told


def describe_nodes(demands: Iterable[Demand], nodes: Iterable[Node]) -> str:
    """What the nodes have of the resources that are asked for."""
    nodes = list(nodes)
    names = list(dict.fromkeys(name for demand in demands for name in demand.each))
    keys = list(dict.fromkeys(key for demand in demands for key in demand.labels))
    told = [_described(node, names, keys) for node in nodes[:MAX_NAMED]]
    rest = [f"{len(nodes) - MAX_NAMED} more nodes"] if len(nodes) > MAX_NAMED else []
    return "; ".join([*told, *rest]) or "there are no nodes"


def _described(node: Node, names: Iterable[str], keys: Iterable[str]) -> str:
    labels = [f"{key}={node.labels[key]}" for key in keys if key in node.labels]
    known = f"node {node.name}" + (f" ({', '.join(labels)})" if labels else "")
    return f"{known} has {amounts({name: node.has.get(name, 0.0) for name in names})}"


def _room(demands: Iterable[Demand], nodes: Iterable[Node]) -> dict[str, int]:
    """How many actors of each demand find a place, one demand after the other."""
    free = [_Free(node) for node in nodes]
    found = {}
    for demand in demands:
        found[demand.name] = 0
        for _ in range(demand.count):
            if not any(node.take(demand) for node in free):
                break
            found[demand.name] += 1
    return found


class _Free:
    """What is left of a node."""

    def __init__(self, node: Node) -> None:
        self.left, self.labels = dict(node.has), node.labels
        gpus = self.left.pop("GPU", 0.0)
        part = gpus - math.floor(gpus)  # of a GPU that others use, where these are free resources
        self.gpus = [1.0] * math.floor(gpus) + ([part] if part > SMALLEST / 2 else [])

    def take(self, demand: Demand) -> bool:
        """Reserve an actor's resources if they are there."""
        each = demand.each
        if not demand.labels.items() <= self.labels.items():
            return False
        rest = {name: amount for name, amount in each.items() if name != "GPU"}
        gpus = each.get("GPU", 0.0)
        chosen = self._choose(gpus)
        if chosen is None or any(
            self.left.get(name, 0.0) < amount - SMALLEST / 2 for name, amount in rest.items()
        ):
            return False
        for name, amount in rest.items():
            self.left[name] -= amount
        for i in chosen:
            self.gpus[i] -= min(gpus, 1.0)
        return True

    def _choose(self, gpus: float) -> list[int] | None:
        """Which GPUs: the fullest that has a part left, or as many whole ones as needed."""
        part = min(gpus, 1.0)
        enough = [i for i, left in enumerate(self.gpus) if left >= part - SMALLEST / 2]
        count = math.ceil(gpus)
        chosen = sorted(enough, key=lambda i: self.gpus[i])[:count]
        return chosen if len(chosen) == count else None


def _actors(count: int, name: str) -> str:
    return f"{count} {name} actor{'' if count == 1 else 's'}"


def amounts(resources: Mapping[str, float]) -> str:
    """`4 CPU and 0.5 GPU`."""
    told = [f"{amount:.4g} {name}" for name, amount in resources.items()]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told) or "nothing"
