"""A server that stops lets the answers that it has begun come to their end."""

import time
from collections.abc import Sequence
from typing import Any

import ray

LOOK_S = 0.2
FLUSH_S = 0.5  # until the last tokens have left the ingress


def drain(managers: Sequence[Any], within_s: float) -> int:
    """Take no more requests, and wait for those that run or wait.

    Returns the number of completions that had not ended after `within_s` seconds. Raises the
    failure of a pool.
    """
    deadline = time.monotonic() + within_s
    ray.get([manager.close.remote() for manager in managers])
    while (left := _left(managers)) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    time.sleep(FLUSH_S)
    return left


def _left(managers: Sequence[Any]) -> int:
    return sum(ray.get([manager.left.remote() for manager in managers]))
