import signal
import socket
from contextlib import suppress

import psutil
import pytest

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
