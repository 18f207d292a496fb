"""Idle processes, some of which hold resources although nobody will give them work, and their end.

While a node starts a process for an actor, the cluster's own server (GCS), which asked for it, may
die. The node then gives the actor's resources to a process of which the server's next start knows
nothing, and never takes them back (https://github.com/ray-project/ray/issues/66199). An actor that
needs them waits for ever, and so does one that is asked for in its place. Only the end of that
process frees them.

Ray does not tell which idle processes hold resources, so all of a job end. It starts others when
it has work for them.
"""

import os
import time
from typing import Any

import psutil
import ray
from ray import ObjectRef
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

LOOK_AGAIN_S = 3.0  # a process may be idle for a moment between two tasks
IDLE = "ray::IDLE"  # the title of a process without work
JOB = "RAY_JOB_ID"  # in the environment of a job's processes


def end_leftovers(node_id: str) -> "ObjectRef[list[int]]":
    """Start a task on a node that ends this job's idle processes there, and returns their ids."""
    where = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task: Any = ray.remote(_end_leftovers).options(
        num_cpus=0, max_retries=0, scheduling_strategy=where
    )
    started: ObjectRef[list[int]] = task.remote()
    return started


def _end_leftovers() -> list[int]:
    """Runs in a process of the node, beside those that it looks at."""
    found = _idle_processes()
    if found:
        time.sleep(LOOK_AGAIN_S)
        found &= _idle_processes()
    for process in found:
        process.kill()  # this very process: psutil compares its start
    return [process.pid for process in found]


def _idle_processes() -> set[psutil.Process]:
    """Of this node, and of this job or of none yet."""
    return {process for process in psutil.Process(os.getppid()).children() if _is_idle(process)}


def _is_idle(process: psutil.Process) -> bool:
    try:
        idle = process.cmdline()[:1] == [IDLE]
        return idle and process.environ().get(JOB) in (None, os.environ.get(JOB))
    except psutil.Error:
        return False
