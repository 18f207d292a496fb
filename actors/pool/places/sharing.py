"""How the actors on one machine share its memory: a share of it is divided among them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from cluster.placement.placement import Demand, Node, shortage
from models.engine_config import EngineConfig
from models.memory.budget import divided


def share_memory(
    config: EngineConfig, demands: Sequence[Demand], nodes: Sequence[Node]
) -> EngineConfig:
    """The configuration of each actor: an amount of memory as it is, a share of it divided.

    `demands`: the actors with KV caches. They are counted as if the node with the most room took as
    many of them as fit, since where they will run is not known before; on GPUs, the GPU. The ranks
    of a target are on one node, each with a cache, and each has a GPU of its own.
    """
    on_gpus = config.device != "cpu" and any(demand.each.get("GPU") for demand in demands)
    among = _most_on_a_gpu(demands) if on_gpus else _most_on_a_node(demands, nodes)
    among *= 1 if on_gpus else config.tensor_parallel
    return replace(config, memory=divided(config.memory, max(among, 1)))


def _most_on_a_gpu(demands: Sequence[Demand]) -> int:
    parts = [demand.each["GPU"] for demand in demands if demand.each.get("GPU")]
    total = sum(demand.count for demand in demands if demand.each.get("GPU"))
    return min(total, math.floor(1 / min(1.0, *parts, 1.0) + 1e-3))


def _most_on_a_node(demands: Sequence[Demand], nodes: Sequence[Node]) -> int:
    total = sum(demand.count for demand in demands)
    fitting = [sum(_fitting(demand, node) for demand in demands) for node in nodes]
    return min([total, max(fitting, default=total)])


def _fitting(demand: Demand, node: Node) -> int:
    """How many of the actors the node can hold, even when nothing else runs there."""
    counts = range(demand.count, 0, -1)
    some = (replace(demand, count=count) for count in counts)
    return next((each.count for each in some if shortage([each], [node]) is None), 0)
