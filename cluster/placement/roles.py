"""Roles: which nodes each kind of process runs on, and what one process occupies.

A node says what it is for by the Ray label `paceline.io/role`. On a cluster that has nodes with
this label, processes run only on nodes of their group; the head node of k8s/ has a label of its
own, so nothing runs there. On a cluster without such labels, processes run wherever there is room.

| role      | group  | what it is                                                                 |
|-----------|--------|----------------------------------------------------------------------------|
| target    | target | a target actor, with its drafter unless there are draft actors; a student  |
| trainer   | target | a worker of `paceline distill`                                             |
| draft     | draft  | a draft actor, shared by targets                                           |
| tokenizer | data   | tasks that encode rows, beside the data                                    |
| data      | data   | tasks that read rows, the writer, the driver of a job                      |
| serve     | data   | the HTTP ingress and the owner of the pool behind it                       |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LABEL = "paceline.io/role"
HEAD = "head"  # of a head node: no role has it
DRIVER = "paceline_driver"  # a resource of the group data's nodes: room for a job's own process


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleNodes:
    """`group`: the value of LABEL on the role's nodes. `num_cpus`: that a process reserves there.

    `accelerated`: uses a GPU where the group's nodes have some.
    """

    group: str
    num_cpus: float = 0.0
    accelerated: bool = False


ROLES: Mapping[str, RoleNodes] = {
    "target": RoleNodes(group="target", num_cpus=1.0, accelerated=True),
    "trainer": RoleNodes(group="target", num_cpus=1.0, accelerated=True),
    "draft": RoleNodes(group="draft", num_cpus=1.0, accelerated=True),
    "tokenizer": RoleNodes(group="data"),
    "data": RoleNodes(group="data"),
    "serve": RoleNodes(group="data"),
}
GROUPS = tuple(dict.fromkeys(role.group for role in ROLES.values()))
# The roles whose processes each command starts; draft actors are an option of it.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "generate": ("target", "tokenizer", "data"),
    "distill": ("target", "trainer", "tokenizer", "data"),
    "serve": ("target", "serve"),
}


def selector(role: str, labels: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The labels of the nodes that the role may use, given those of all nodes; {}: any node."""
    labelled = any(LABEL in found for found in labels)
    return {LABEL: ROLES[role].group} if labelled else {}
