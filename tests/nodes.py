"""A Ray cluster of several nodes on this machine, which can lose them and its own server (GCS)."""

import random
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest

from cluster.private import DASHBOARD

STORE_BYTES = 80 * 2**20
PATIENCE_S = 120.0
NOTICED = {  # a lost node is noticed within two seconds
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """A head without CPUs, whose state is on the disk, and nodes of several roles."""

    def __init__(self, head: str) -> None:
        from ray.cluster_utils import Cluster

        options = {
            "num_cpus": 0,
            "include_dashboard": False,
            "labels": {"paceline.io/role": head},
            "object_store_memory": STORE_BYTES,
            "_system_config": NOTICED,
        }
        with starting():
            self._cluster: Any = Cluster(initialize_head=True, head_node_args=options)
        self._others: list[tuple[Any, str, int]] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, role: str, num_cpus: int = 1) -> None:
        labels = {"paceline.io/role": role}
        options = {"num_cpus": num_cpus, "labels": labels, "object_store_memory": STORE_BYTES}
        with starting():
            node = self._cluster.add_node(**options)
        self._others.append((node, role, num_cpus))

    def lose(self, number: int = -1) -> tuple[str, int]:
        """SIGKILL all processes of a node; its role and CPUs."""
        node, *told = self._others.pop(number)
        (raylet,) = node.all_processes["raylet"]
        processes = psutil.Process(raylet.process.pid).children(recursive=True)
        self._cluster.remove_node(node, allow_graceful=False)
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        role, num_cpus = told
        return role, num_cpus

    def replace(self, chance: random.Random) -> str:
        """Lose any node but the head, and add one like it; its role."""
        role, num_cpus = self.lose(chance.randrange(len(self._others)))
        self.add(role, num_cpus)
        return role

    def restart_server(self) -> None:
        """SIGKILL the head's server (GCS), and start it again."""
        self._cluster.head_node.kill_gcs_server()
        self._cluster.head_node.start_gcs_server()

    def processes(self, title: str) -> list[psutil.Process]:
        """Those with a title that begins with this expression."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if re.match(title, " ".join(process.cmdline())):
                    found.append(process)
        return found

    def stop(self) -> None:
        self._cluster.shutdown()


@contextmanager
def starting() -> Iterator[None]:
    """Start nodes with small agents; Ray's 30 seconds for each are short on a busy machine."""
    from ray._private import services

    look = services.get_node

    def get_node(*where: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return look(*where)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise

    with patch.object(services, "get_node", get_node), patch.dict(sys.modules, {DASHBOARD: None}):
        yield


@contextmanager
def cluster_of(state: Path, head: str, others: Mapping[str, tuple[int, ...]]) -> Iterator[Nodes]:
    """`head`: the role of the head; `others`: the CPUs of each node, by role."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_gcs_storage", "rocksdb")
        environment.setenv("RAY_gcs_storage_path", str(state))
        environment.setenv("RAY_gcs_server_port_wait_time_s", "300")
        environment.setenv("RAY_worker_niceness", "0")  # Ray's default is 15: they would starve
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Nodes(head)
        try:
            for role, cpus in others.items():
                for num_cpus in cpus:
                    nodes.add(role, num_cpus)
            yield nodes
        finally:
            nodes.stop()
