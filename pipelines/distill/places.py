"""Where a distillation trains: on the CPU, or on GPUs of the cluster, one for each process.

Also where its target is meanwhile, with `--states stream`, and what is run beside the training.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from actors.pool.members import reason_of
from actors.pool.places.placing import require_room
from actors.pool.places.role import Role
from cluster.errors import ClusterError
from cluster.placement.placement import Demand, Node, alive_nodes, gpu_share, selector
from cluster.placement.roles import ROLES
from models.errors import PacelineError
from pipelines.distill.config import DistillConfig
from pipelines.engine_options import AUTO
from pipelines.errors import JobFailed

CPU, CUDA = "cpu", "cuda"
TRAINER, TARGET = "trainer", "target"  # roles
T = TypeVar("T")


def settled(config: DistillConfig) -> str:
    """The device that the option means on the connected cluster, which has room for the processes.

    Raises:
        PoolFailed: the nodes cannot hold them, even with nothing else on them.
    """
    labels = {role: selector(role) for role in (TRAINER, TARGET)}
    gpus = gpus_of(alive_nodes(), labels[TRAINER])
    device = device_of(config, gpus)
    patience = Role(name=TRAINER).place_s
    require_room(demands(config, device=device, gpus=gpus, labels=labels), patience_s=patience)
    return device


def demands(
    config: DistillConfig, *, device: str, gpus: float, labels: Mapping[str, Mapping[str, str]]
) -> list[Demand]:
    """The processes that work while the training does.

    Args:
        device: "cpu" or "cuda". gpus: of the cluster. labels: of the nodes of the roles TRAINER and
            TARGET.
    """
    found = [training(config, device=device, labels=labels[TRAINER])]
    if config.num_teachers:
        share = teacher_gpus(config, device=device, gpus=gpus)
        each = {"CPU": ROLES[TARGET].num_cpus} | ({"GPU": share} if share else {})
        found.append(
            Demand(name="teacher", count=config.num_teachers, each=each, labels=labels[TARGET])
        )
    return found


def training(config: DistillConfig, *, device: str, labels: Mapping[str, str]) -> Demand:
    """The training processes."""
    return Demand(name=TRAINER, count=config.workers, each=worker_needs(device), labels=labels)


def worker_needs(device: str) -> dict[str, float]:
    """The resources of a training process: NCCL wants a whole GPU for each."""
    return {"CPU": ROLES[TRAINER].num_cpus} | ({"GPU": 1.0} if device == CUDA else {})


def device_of(config: DistillConfig, gpus: float) -> str:
    """What the option means where the nodes for training have so many GPUs."""
    if config.device != AUTO:
        return config.device
    return CUDA if gpus else CPU


def gpus_of(nodes: Iterable[Node], labels: Mapping[str, str]) -> float:
    """Of the nodes with these labels."""
    return sum(n.has.get("GPU", 0.0) for n in nodes if labels.items() <= n.labels.items())


def teacher_gpus(config: DistillConfig, *, device: str, gpus: float | None = None) -> float:
    """What each teacher actor gets of the GPUs that the training leaves; `gpus`: of the cluster."""
    if device == CPU:
        return 0.0
    gpus = gpus_of(alive_nodes(), selector(TARGET)) if gpus is None else gpus
    return gpu_share(actors=config.num_teachers, gpus=max(1.0, gpus - config.workers))


def beside_training(config: DistillConfig, work: Callable[[], T]) -> T:
    """Do it on the training's device: here, or in a task that has a GPU.

    Raises:
        PacelineError: of the work, or JobFailed: its process ended, or could not do it.
    """
    if config.device == CPU:
        return work()
    # One call for each process: its end gives back the GPU's memory.
    task: Any = ray.remote(
        num_cpus=ROLES[TRAINER].num_cpus, num_gpus=1, max_calls=1, max_retries=0
    )(_done)
    task = task.options(label_selector=selector(TRAINER) or None)
    try:
        made: T = ray.get(task.remote(work, config.threads, str(Path.cwd())))
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else None
        if isinstance(cause, PacelineError | ClusterError):
            raise cause from error
        told = f"no result from the GPU: {reason_of(error)}. The same command continues"
        raise JobFailed(told) from error
    return made


def _done(work: Callable[[], T], threads: int | None, folder: str) -> T:
    """In a process of its own, with relative paths as in the driver's where the folder is there."""
    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    if Path(folder).is_dir():
        os.chdir(folder)
    return work()
