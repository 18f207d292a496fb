"""A Ray cluster of several nodes on this machine, which can lose them and its own server (GCS).

A process of its own starts and ends them: Ray's client of a GCS that stays away for 60 seconds ends
the process that it is in, without a word.
"""

import multiprocessing
import random
import re
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
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


class Owner:
    """A head without CPUs, whose state is on the disk, and nodes, each named by its raylet's id.

    `one`: that of this process.
    """

    one: "Owner"

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
        self._nodes: dict[int, Any] = {}

    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, role: str, num_cpus: int) -> int:
        labels = {"paceline.io/role": role}
        options = {"num_cpus": num_cpus, "labels": labels, "object_store_memory": STORE_BYTES}
        with starting():
            node = self._cluster.add_node(**options)
        (raylet,) = node.all_processes["raylet"]
        self._nodes[raylet.process.pid] = node
        return int(raylet.process.pid)

    def lose(self, pid: int) -> None:
        processes = psutil.Process(pid).children(recursive=True)
        self._cluster.remove_node(self._nodes.pop(pid), allow_graceful=False)
        for process in processes:
            with suppress(psutil.Error):
                process.kill()

    def restart_server(self) -> None:
        self._cluster.head_node.kill_gcs_server()
        self._cluster.head_node.start_gcs_server()

    def stop(self) -> None:
        self._cluster.shutdown()


def start(head: str) -> None:
    Owner.one = Owner(head)


def call(name: str, *values: object) -> Any:
    return getattr(Owner.one, name)(*values)


class Nodes:
    """The cluster of another process's Owner, and the roles of its nodes."""

    def __init__(self, owner: ProcessPoolExecutor) -> None:
        self._owner = owner
        self._others: list[tuple[int, str, int]] = []
        self.address: str = self.call("address")

    def call(self, name: str, *values: object) -> Any:
        return self._owner.submit(call, name, *values).result()

    def add(self, role: str, num_cpus: int = 1) -> None:
        self._others.append((self.call("add", role, num_cpus), role, num_cpus))

    def lose(self, number: int = -1) -> tuple[str, int]:
        """SIGKILL all processes of a node; its role and CPUs."""
        pid, role, num_cpus = self._others.pop(number)
        self.call("lose", pid)
        return role, num_cpus

    def replace(self, chance: random.Random) -> str:
        """Lose any node but the head, and add one like it; its role."""
        role, num_cpus = self.lose(chance.randrange(len(self._others)))
        self.add(role, num_cpus)
        return role

    def restart_server(self) -> None:
        """SIGKILL the head's server (GCS), and start it again."""
        self.call("restart_server")

    def processes(self, title: str, *, node: int | None = None) -> list[psutil.Process]:
        """Those with a title that begins with this expression; `node`: of one in their order."""
        found = []
        root = psutil.Process(None if node is None else self._others[node][0])
        for process in root.children(recursive=True):
            with suppress(psutil.Error):
                if re.match(title, " ".join(process.cmdline())):
                    found.append(process)
        return found


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
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as owner:
            owner.submit(start, head).result()
            nodes = Nodes(owner)
            try:
                for role, cpus in others.items():
                    for num_cpus in cpus:
                        nodes.add(role, num_cpus)
                yield nodes
            finally:
                nodes.call("stop")
