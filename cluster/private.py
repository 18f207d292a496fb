"""The head node of a private Ray cluster: only the processes that a job on one machine needs.

By default Ray also starts an autoscaler monitor, a log monitor, a dashboard and one idle worker per
CPU: some ten seconds of CPU time, which nothing here uses. `ray.init` has no options for them, so
this uses names of Ray's internals; a version of Ray that lacks one of them starts that process.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import ray
from ray._private import node

from cluster.processes.descendants import share_cores

DASHBOARD = "ray.dashboard.optional_deps"  # without it, Ray starts the small dashboard agent


class PrivateNode(node.Node):
    """A head node without monitors and dashboard."""

    def start_monitor(self) -> None:
        """No autoscaler: there is one node."""

    def start_log_monitor(self) -> None:
        """Nobody reads the workers' logs but from their files."""

    def start_api_server(self, **_: object) -> None:
        """No dashboard."""

    def start_raylet(self, *args: Any, **options: Any) -> None:
        """Of the dashboard's agent, which Ray insists on, the minimal one."""
        with patch.dict(sys.modules, {DASHBOARD: None}):
            super().start_raylet(*args, **options)


def init(**options: Any) -> None:
    """`ray.init` of a new cluster on this machine.

    Call it in a thread that lives as long as the cluster: the kernel ends Ray's processes when the
    thread that started them ends.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # No process of Ray Train that watches whether nodes will be taken away: here is but this one.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    share_cores()
    with _private_node():
        ray.init(
            address="local",
            include_dashboard=False,
            _system_config={"prestart_worker_first_driver": False},
            **options,
        )


@contextmanager
def _private_node() -> Iterator[None]:
    with patch.object(node, "Node", PrivateNode):
        yield
