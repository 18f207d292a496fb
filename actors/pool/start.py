"""The actors of a pool of targets: what each of them occupies, all of them started or none."""

import os
from collections.abc import Mapping
from dataclasses import replace

import ray

from actors.messages import DraftTeam
from actors.pool.members import Pool
from actors.pool.places.role import Role
from actors.pool.places.sharing import share_memory
from actors.pool.team import check_fit, describe, draft_pool, team_of
from actors.target import TargetActor
from cluster.placement.placement import Demand, alive_nodes, selector
from cluster.placement.roles import ROLES
from models.drafting.folder_kind import EAGLE
from models.engine_config import EngineConfig
from models.registry import FOLDER, FOLDERS, NONE, drafter_entry
from models.requests.request import require

CALLS = 4  # that a target actor serves at once: one waits for results, others must get through


def start_actors(
    config: EngineConfig,
    *,
    target_actors: int,
    max_target_actors: int,
    draft_actors: int,
    num_cpus: float | None,
    num_gpus: float,
    resources: Mapping[str, float],
    draft_gpus: float,
    draft_patience: float,
) -> tuple[EngineConfig, Pool, Pool | None]:
    """The configuration of each actor, the targets and the draft actors, once all are ready.

    Arguments as of `TargetPool.start`, which raises the same.
    """
    require(draft_actors >= 0, "draft_actors", draft_actors, "0 or more")
    ranks = config.tensor_parallel
    processes = ranks * max_target_actors + draft_actors
    config = replace(config, threads=threads_of(config.threads, num_cpus, processes))
    cpus = ROLES["target"].num_cpus if num_cpus is None else num_cpus
    role = Role(
        name="target",
        num_cpus=cpus,
        num_gpus=num_gpus,
        resources=resources,
        labels=selector("target"),
        concurrency=CALLS,
        min_size=target_actors,
        max_size=max_target_actors,
        ranks=ranks,
    )
    demands = [role.demand(max_target_actors)]
    if draft_actors and drafter_entry(config.drafter) in (FOLDER, FOLDERS[EAGLE]):
        parts = {"CPU": cpus, "GPU": draft_gpus}
        demands.append(Demand(name="draft", count=draft_actors, each=parts))
    nodes = alive_nodes() if ray.is_initialized() else []
    config = share_memory(config, demands, nodes)
    drafts = None
    if draft_actors and config.drafter != NONE:
        rows = config.batch_size * max_target_actors
        drafts = draft_pool(
            config, actors=draft_actors, rows=rows, num_cpus=cpus, num_gpus=draft_gpus
        )
    return config, *start_all(config, role, drafts, patience=draft_patience)


def start_all(
    config: EngineConfig, role: Role, drafts: Pool | None, *, patience: float
) -> tuple[Pool, Pool | None]:
    """Start the draft actors, then the targets that use them; all or none."""
    team: DraftTeam | None = None
    targets = Pool(role, TargetActor, lambda: (config, team))
    try:
        if drafts is not None:
            drafts.start(beside=[role.demand(role.min_size)])
            team = team_of(drafts, patience=patience)
        targets.start()
        if drafts is not None:
            check_fit(describe(targets), describe(drafts))
    except BaseException:
        for pool in (targets, drafts):
            if pool is not None:
                pool.stop()
        raise
    return targets, drafts


def threads_of(threads: int | None, num_cpus: float | None, actors: int) -> int:
    """Of each of so many actors: `threads`, if given, else its CPUs or its share of this machine's.

    Ray gives an actor without CPUs of its own a single one.
    """
    if threads is not None:
        return threads
    if num_cpus is not None:
        return max(1, int(num_cpus))
    return max(1, len(os.sched_getaffinity(0)) // actors)
