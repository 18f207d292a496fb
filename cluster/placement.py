"""How many of a cluster's processors each model actor gets."""

import os
from dataclasses import dataclass

import ray


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Processors of one actor."""

    num_cpus: float
    num_gpus: float


def share(*, actors: int, threads: int | None, device: str, local: bool) -> Share:
    """An equal part for each of `actors` model actors.

    Args:
        threads: CPU threads that each of them uses; None: all of a machine of our own (`local`),
            divided by the actors, and one each on a cluster that others use, too.
        device: "cpu": no GPU; "cuda": at least one is divided; "auto": those that there are.
    """
    cpus = threads or (max(1, (os.cpu_count() or 1) // actors) if local else 1)
    gpus = ray.cluster_resources().get("GPU", 0.0) if device != "cpu" else 0.0
    if device == "cuda":
        gpus = max(gpus, 1.0)
    each = gpus / actors
    return Share(num_cpus=float(cpus), num_gpus=float(int(each)) if each >= 1 else each)
