"""A Ray cluster on two hosts: network namespaces of this machine, with a cable between them.

`python -m tests.hosts start ...` is `ray start ...` with a small agent, as tests/nodes.py has it.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.nodes import NOTICED, PATIENCE_S, STORE_BYTES, starting

NEAR, FAR = "near", "far"
ADDRESSES = {NEAR: "10.203.0.1", FAR: "10.203.0.2"}
PORT = 6379
CABLE = "cable"  # the name of its end on each host
JOINED = b"Ray runtime started"


class Hosts:
    """`near` has the head; a process that is started on a host sees only the other one."""

    def __init__(self) -> None:
        self._names = {host: f"paceline-{os.getpid()}-{host}" for host in ADDRESSES}
        self._temp = Path(tempfile.mkdtemp(prefix="hosts-", dir="/tmp"))  # paths of sockets: short
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_worker_niceness": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    @property
    def address(self) -> str:
        """Of the cluster, for `--address`."""
        return f"{ADDRESSES[NEAR]}:{PORT}"

    def join(self) -> None:
        """Lay the cable. Raises CalledProcessError where the machine does not allow it."""
        for name in self._names.values():
            ip("netns", "add", name)
        near, far = self._names.values()
        peer = ("type", "veth", "peer", "name", CABLE, "netns", far)
        ip("-n", near, "link", "add", CABLE, *peer)
        for host, name in self._names.items():
            other = ADDRESSES[FAR if host == NEAR else NEAR]
            ip("-n", name, "address", "add", f"{ADDRESSES[host]}/24", "dev", CABLE)
            for device in ("lo", CABLE):
                ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "route", "add", "default", "via", other)  # Ray asks for its own address

    def cut(self) -> None:
        """Cut the cable: no packet arrives, and no connection is told."""
        ip("-n", self._names[FAR], "link", "set", CABLE, "down")

    def start(self, host: str, role: str, num_cpus: int, *, head: bool = False) -> None:
        """Start a node of the cluster, and wait until it has joined.

        Not two at once: they would choose the same names for their sockets.
        """
        options = {
            "node-ip-address": ADDRESSES[host],
            "num-cpus": num_cpus,
            "object-store-memory": STORE_BYTES,
            "labels": f"paceline.io/role={role}",
        }
        if head:
            options |= {"port": PORT, "include-dashboard": "false", "temp-dir": self._temp}
            noticed = NOTICED | {"health_check_timeout_ms": 500}  # nobody says that it is lost
            options |= {"system-config": json.dumps(noticed)}
        else:
            options |= {"address": self.address}
        flags = [f"--{name}={value}" for name, value in options.items()]
        command = ["tests.hosts", "start", "--block", *flags, *(["--head"] if head else [])]
        log = self._temp / f"{host}-{role}.log"
        process = self.run(host, *command, log=log)
        self._nodes.append(process)
        deadline = time.monotonic() + PATIENCE_S
        while JOINED not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def run(self, host: str, *module: object, log: Path) -> "subprocess.Popen[bytes]":
        """Start `python -m MODULE ...` on a host; what it prints goes to a file."""
        inside = ["ip", "netns", "exec", self._names[host], sys.executable, "-m", *map(str, module)]
        with log.open("wb") as out:
            return subprocess.Popen(inside, stdout=out, stderr=out, env=self._environment)

    def end(self) -> None:
        """End all that runs on the hosts, and remove them."""
        for name in self._names.values():
            for pid in ip("netns", "pids", name, check=False).split():
                with suppress(psutil.Error):
                    psutil.Process(int(pid)).kill()
        for process in self._nodes:
            process.wait()
        for name in self._names.values():
            ip("netns", "delete", name, check=False)
        shutil.rmtree(self._temp, ignore_errors=True)


def ip(*words: str, check: bool = True) -> str:
    """What `ip` prints."""
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True).stdout


if __name__ == "__main__":
    from ray.scripts.scripts import cli

    with starting():
        cli()
