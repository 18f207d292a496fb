"""A server that stops lets the answers that it has begun come to their end."""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError

LOOK_S = 0.2
ANSWER_S = 2.0  # that a manager may take to answer a look
FLUSH_S = 0.5  # for the proxy, which sends on what the ingress has handed over


def drain(managers: Sequence[Any], within_s: float) -> int | None:
    """Take no more requests, and wait for those that run, wait, or are being sent.

    Returns the number of completions that had not ended after `within_s` seconds; None: a manager
    does not answer, so it is not known. Raises the failure of a pool.
    """
    deadline = time.monotonic() + within_s
    _answers([manager.close.remote() for manager in managers])
    while (left := _left(managers)) != 0 and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    time.sleep(FLUSH_S)
    return left


def _left(managers: Sequence[Any]) -> int | None:
    told = _answers([manager.left.remote() for manager in managers])
    return None if told is None else sum(told)


def _answers(calls: Sequence[Any]) -> list[Any] | None:
    """What calls return; None if one takes longer than ANSWER_S."""
    try:
        return list(ray.get(calls, timeout=ANSWER_S))
    except GetTimeoutError:
        return None
