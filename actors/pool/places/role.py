"""What an actor of a pool may use of the cluster, how many there may be, and when to give up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.placement.placement import Demand
from models.requests.request import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One kind of actor: what each of them occupies, how many there are, how often they may die.

    `resources` are custom resources of the cluster, and `labels` those of the nodes that the actors
    may run on (cluster/placement/roles.py). `ranks`: processes of each actor, itself included, with
    the same resources each, on one node.

    More than `max_restarts` deaths for each actor of the pool in `window_s` seconds, with nothing
    completed between them, are too many. `required`: with none left, the pool fails; otherwise it
    does without them for a while.

    Where the cluster's nodes cannot hold the actors, `place_s` is how long to wait for more nodes;
    where they can, but others use them, or the cluster may add nodes, `busy_s`.
    """

    name: str
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = 1  # calls that an actor serves at once
    min_size: int = 1
    max_size: int = 1
    ranks: int = 1
    max_restarts: int = 6
    window_s: float = 600.0
    silent_s: float = 120.0  # an actor that answers nothing for so long is taken for dead
    place_s: float = 5.0
    busy_s: float = 1800.0
    required: bool = True

    def __post_init__(self) -> None:
        for name in ("num_cpus", "num_gpus"):
            value = getattr(self, name)
            require(value >= 0, f"{self.name}_{name}", value, "0 or more")
        gpus = self.num_gpus
        told = "a part of one GPU, or a whole number of them"
        require(gpus <= 1 or gpus == int(gpus), f"{self.name}_num_gpus", gpus, told)
        told = "a whole number of GPUs for each of several ranks"
        require(self.ranks == 1 or gpus == int(gpus), f"{self.name}_num_gpus", gpus, told)
        least, most = self.min_size, self.max_size
        require(least >= 1, f"{self.name}_actors", least, "1 or more")
        require(most >= least, f"max_{self.name}_actors", most, f"{least} or more")

    @property
    def each(self) -> dict[str, float]:
        """What one process occupies."""
        each = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        return {name: amount for name, amount in each.items() if amount}

    def options(self) -> dict[str, Any]:
        """As Ray wants them. Pools replace the dead themselves, and place ranks by groups."""
        return {
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            "resources": dict(self.resources) or None,
            "label_selector": (dict(self.labels) or None) if self.ranks == 1 else None,
            "max_concurrency": self.concurrency,
            "max_restarts": 0,
        }

    def demand(self, count: int) -> Demand:
        """What `count` actors occupy, with all their ranks."""
        each = {name: self.ranks * amount for name, amount in self.each.items()}
        return Demand(name=self.name, count=count, each=each, labels=self.labels)
