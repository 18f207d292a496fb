"""What part of a cluster's GPUs each model actor gets."""

import ray


def gpus_each(*, actors: int, device: str) -> float:
    """GPUs of each of `actors` model actors: whole ones where there are enough, else a part.

    `device`: "cpu": none; "cuda": part of one at least, so that the actors wait for a GPU if the
    cluster is about to get one; "auto": of those that there are.
    """
    if device == "cpu":
        return 0.0
    gpus = float(ray.cluster_resources().get("GPU", 0.0))
    if device == "cuda":
        gpus = max(gpus, 1.0)
    return 1.0 if gpus >= actors else gpus / actors
