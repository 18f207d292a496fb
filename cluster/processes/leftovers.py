"""Idle processes, some of which hold resources although nobody will give them work, and their end.

While a node starts a process for an actor, the cluster's own server (GCS), which asked for it, may
die. The node then gives the actor's resources to a process of which the server's next start knows
nothing, and never takes them back (https://github.com/ray-project/ray/issues/66199). An actor that
needs them waits for ever, and so does one that is asked for in its place. Only the end of that
process frees them.

Ray does not tell which idle processes hold resources, so all of a job end that do nothing at all.
It starts others when it has work for them. A process that imports what its first actor needs has
the same title, but takes CPU time. All applications of one Ray Serve are one job.
"""

import os
import time
from contextlib import suppress
from typing import Any

import psutil
import ray
from ray import ObjectRef
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

LOOK_AGAIN_S = 3.0  # a process may be idle for a moment between two tasks
BUSY_S = 0.15  # of CPU between the looks: it imports what its first actor needs
IDLE = "ray::IDLE"  # the title of a process that has run no task or actor yet, or has no more
JOB = "RAY_JOB_ID"  # in the environment of a job's processes
NO_JOB = (None, "ffffffff")  # of a process that was started before any job needed it


def end_leftovers(node_id: str) -> "ObjectRef[list[int]]":
    """Start a task on a node that ends this job's idle processes there, and returns their ids."""
    where = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task: Any = ray.remote(_end_leftovers).options(
        num_cpus=0, max_retries=0, scheduling_strategy=where
    )
    started: ObjectRef[list[int]] = task.remote(ray.get_runtime_context().get_job_id())
    return started


def _end_leftovers(job: str) -> list[int]:
    """Runs in a process of the node, beside those that it looks at."""
    before = _idle_processes(job)
    if not before:
        return []
    time.sleep(LOOK_AGAIN_S)
    ended = []
    for process, cpu_s in _idle_processes(job).items():
        if process in before and cpu_s - before[process] < BUSY_S:
            with suppress(psutil.Error):
                process.kill()  # this very process: psutil compares its start
                ended.append(process.pid)
    return ended


def _idle_processes(job: str) -> dict[psutil.Process, float]:
    """Of this node, and of the job or of none yet, each with the CPU seconds that it has taken."""
    found = {}
    for process in psutil.Process(os.getppid()).children():
        with suppress(psutil.Error):
            idle = process.cmdline()[:1] == [IDLE]
            if idle and process.environ().get(JOB) in (job, *NO_JOB):
                found[process] = sum(process.cpu_times()[:2])
    return found
