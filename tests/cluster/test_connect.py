import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
import ray

from cluster.connect import connected
from cluster.errors import CannotConnect


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(CannotConnect, match=f"{address}': Connection refused; give HOST:PORT"),
            connected(address),
        ):
            pass


@pytest.mark.ray
def test_a_private_cluster_starts_only_what_a_job_needs(ray_cluster: None) -> None:
    commands = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            commands.append(" ".join(process.cmdline()))
    assert any("gcs_server" in command for command in commands)
    assert any("raylet" in command for command in commands)
    for name in ("monitor.py", "log_monitor.py", "dashboard.py"):
        assert not any(f"/{name}" in command for command in commands)


@pytest.mark.ray
def test_ray_leaves_the_handler_of_sigterm_alone(ray_cluster: None) -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


PROGRAM = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(lambda: "it ran").remote()))
"""


@pytest.mark.ray
@pytest.mark.parametrize("knows", [True, False])
def test_only_a_program_with_the_token_can_run_anything(ray_cluster: None, knows: bool) -> None:
    environment = {k: v for k, v in os.environ.items() if knows or not k.startswith("RAY_AUTH")}
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-c", PROGRAM, address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert ("it ran" in done.stdout) == knows
    assert ("AuthenticationError" in done.stderr) != knows
