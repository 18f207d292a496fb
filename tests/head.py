"""The head node of a Ray cluster as `ray start` makes it: dashboard, client server and a token."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.hosts import JOINED
from tests.nodes import PATIENCE_S, STORE_BYTES
from tests.ports import free_port

STARTS_S = 60.0
HOST = "127.0.0.1"
NEEDS = "import ray.dashboard.optional_deps"


class Head:
    """A cluster of this node alone, with the ports that programs outside of a cluster use."""

    def __init__(self, num_cpus: int) -> None:
        self.token = secrets.token_hex(16)
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }
        self._dashboard, self._client = free_port(), free_port()
        self._temp = Path(tempfile.mkdtemp(prefix="head-", dir="/tmp"))  # paths of sockets: short
        options = {
            "port": free_port(),
            "ray-client-server-port": self._client,
            "include-dashboard": "true",
            "dashboard-host": HOST,
            "dashboard-port": self._dashboard,
            "log-color": "false",
            "num-cpus": num_cpus,
            "object-store-memory": STORE_BYTES,
            "temp-dir": self._temp,
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        self._log = self._temp / "head.log"
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, *flags], stdout=out, stderr=out, env=self.environment
            )

    @property
    def client_address(self) -> str:
        """For `--address`. The client server listens at the address that Ray finds for the node."""
        (host,) = re.findall(r"Local node IP: ([0-9.]+)", self._log.read_text())
        return f"ray://{host}:{self._client}"

    def wait(self) -> None:
        """Until it runs and its dashboard answers."""
        deadline = time.monotonic() + PATIENCE_S
        while (
            JOINED not in self._log.read_bytes() or self.status("/api/version", self.token) != 200
        ):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)

    def status(self, path: str, token: str | None, body: bytes | None = None) -> int | None:
        """Of the dashboard's answer to a GET, or to a POST of `body`; None: nobody listens yet."""
        headers = {"Content-Type": "application/json"}
        headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"http://{HOST}:{self._dashboard}{path}"
        asked = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(asked, timeout=STARTS_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)
        except OSError:
            return None

    def end(self) -> None:
        """End what was started, and nothing else."""
        started = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=20)
        self._process.kill()
        self._process.wait()
        for process in started:
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self._temp, ignore_errors=True)


@contextmanager
def started(num_cpus: int = 0) -> Iterator[Head]:
    """Skips the test where Ray's dashboard cannot run."""
    if subprocess.run([sys.executable, "-c", NEEDS], capture_output=True).returncode:
        pytest.skip("ray[default] is not installed: NO PORT OF RAY'S DASHBOARD WAS ASKED")
    head = Head(num_cpus)
    try:
        head.wait()
        yield head
    finally:
        head.end()
