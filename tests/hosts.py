"""Two network namespaces with a cable between them: two machines, as far as Ray can tell."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

PORT = 6379
TEMPORARY = f"/tmp/paceline-{os.getpid()}"  # a short name, for sockets
RAY = str(Path(sys.executable).with_name("ray"))


class Host:
    """A namespace of this machine's network; it sees the files and processes of all."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, words: Sequence[str], **options: object) -> "subprocess.Popen[bytes]":
        """A process of this host; it ends with the host."""
        command = ["ip", "netns", "exec", self.name, *words]
        process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
        self._started.append(process)
        return process

    def start_ray(self, role: str, log: Path, *options: str) -> None:
        """A node with one CPU; without an address, a head."""
        told = [f"--labels=paceline.io/role={role}", "--num-cpus=1", f"--temp-dir={TEMPORARY}"]
        place = [f"--node-ip-address={self.address}", "--object-store-memory=80000000"]
        with log.open("wb") as out:
            words = [RAY, "start", *place, *told, *options, "--block"]
            self.start(words, stdout=out, stderr=out)
        while "ray stop" not in log.read_text():  # its last words
            assert self._started[-1].poll() is None, log.read_text()
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        told = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, check=True)
        found = []
        for pid in told.stdout.split():
            with suppress(psutil.Error):
                found.append(psutil.Process(int(pid)))
        return found

    def cut(self) -> None:
        """Nothing comes or goes any more; both sides keep their connections."""
        _ip("-n", self.name, "link", "set", "cable", "down")

    def end(self) -> None:
        while found := self.processes():
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found, timeout=5)
        for started in self._started:
            started.wait()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Skips, with the reason, where this process may make no namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip`")
    hosts = [Host(f"paceline-{os.getpid()}-{i}", f"10.77.0.{1 + i}") for i in range(2)]
    try:
        _ip("netns", "add", hosts[0].name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        _ip("netns", "add", hosts[1].name)
        _ip("-n", hosts[0].name, "link", "add", "cable", "type", "veth", "peer", "name", "other")
        _ip("-n", hosts[0].name, "link", "set", "other", "netns", hosts[1].name, "name", "cable")
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _ip("-n", host.name, "link", "set", device, "up")
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            with suppress(subprocess.CalledProcessError):
                host.end()
                _ip("netns", "delete", host.name)
        shutil.rmtree(TEMPORARY, ignore_errors=True)
