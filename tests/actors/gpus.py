"""Actors on a cluster of its own with two GPUs that are only declared; run as a program."""

import sys
import time

import ray

from actors.errors import PoolFailed
from actors.pool.members import Pool
from actors.pool.places.role import Role
from cluster.placement.placement import gpus_each
from tests.actors.test_placing import Idle


def start(share: float) -> Pool:
    role = Role(name="target", num_cpus=0.5, num_gpus=share, min_size=3, max_size=3)
    pool = Pool(role, Idle, tuple)
    pool.start()
    return pool


def main() -> None:
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False)
    began = time.monotonic()
    try:
        start(2 / 3)
    except PoolFailed as error:
        print(f"refused after {time.monotonic() - began:.0f} s: {error}")
    pool = start(gpus_each(actors=3, device="auto"))
    print(f"{len(pool.ready)} actors with {pool.role.num_gpus} GPU each")
    ray.shutdown()
    pool.stop()
    print(f"after shutdown and stop: Ray is {'' if ray.is_initialized() else 'not '}running")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
