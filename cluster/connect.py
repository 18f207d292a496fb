"""Reaching a Ray cluster: one at an address, or a private one that lives as long as this process.

Never a bare `ray.init()`, which would join whatever cluster runs on the machine. A private cluster
always asks for a token, which Ray makes. For an address, Ray finds the cluster's token in
RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster import logs, private
from cluster.errors import CannotConnect
from cluster.processes.descendants import leaving

OBJECT_STORE_BYTES = 500 * 2**20
STARTS = 3  # tries to start a private cluster
KNOCK_S = 5.0
PROXY_LOADS_S = "60"

log = logging.getLogger(__name__)


@contextmanager
def connected(address: str | None = None, *, min_cpus: int = 1) -> Iterator[None]:
    """Be connected to a Ray cluster; a connection that exists is used and left open.

    Args:
        address: of a running cluster (`auto`, `HOST:6379`, `ray://HOST:10001`); None: start one.
        min_cpus: logical CPUs that a cluster started here offers at least.
    """
    if ray.is_initialized():
        yield
        return
    connection = Connection(address, max(min_cpus, os.cpu_count() or 1))
    try:
        connection.wait()
        yield
    finally:
        connection.close()


class Connection:
    """Connects in a thread, which lives until the connection is closed.

    The kernel ends a private cluster when that thread ends. And the main thread, which waits, can
    be interrupted; within `ray.init` an interrupt would leave half a cluster behind.
    """

    def __init__(self, address: str | None, num_cpus: int) -> None:
        self._address, self._num_cpus = address, num_cpus
        self._connected, self._closing = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="ray connection")
        self._thread.start()

    def wait(self) -> None:
        """Until the connection stands. Raises CannotConnect."""
        self._connected.wait()
        _restore_signals()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Disconnect, and end a private cluster; one that is still starting ends when it has."""
        if leaving.is_set():
            return
        self._closing.set()
        if self._connected.is_set():
            self._thread.join()

    def _run(self) -> None:
        try:
            _connect(self._address, self._num_cpus)
        except BaseException as error:  # it belongs to whoever waits
            self._error = error
        self._connected.set()
        self._closing.wait()
        ray.shutdown()


def _restore_signals() -> None:
    """Put Python's handler back in the place of Ray's, which prints a stack trace at SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


def beside_driver() -> NodeAffinitySchedulingStrategy:
    """Placement on the driver's own node: where its local files are."""
    node = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _connect(address: str | None, num_cpus: int) -> None:
    # Ray would set CUDA_VISIBLE_DEVICES="" in actors without GPUs; this is its future default.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:  # on a busy machine, Serve's proxy loads for longer than the 5 s it has
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", PROXY_LOADS_S)
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {"num_cpus": num_cpus, "object_store_memory": OBJECT_STORE_BYTES}
    else:
        _knock(address)
        if logs.chosen():
            options["runtime_env"] = {"env_vars": dict(logs.chosen())}
    _init(address, options)
    if address is None and not os.environ.get("RAY_AUTH_MODE"):
        ray.shutdown()
        raise CannotConnect("Ray started a cluster that asks for no token: set RAY_AUTH_MODE=token")


def _knock(address: str) -> None:
    """Raise CannotConnect if nothing listens there: Ray would try for many minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
        except OSError as error:
            reason = error.strerror or error
            told = f"cannot reach the Ray cluster at {address!r}: {reason}"
            raise CannotConnect(f"{told}; give HOST:PORT of its head node, or auto") from error


def _init(address: str | None, options: dict[str, Any]) -> None:
    """`ray.init`, more than once for a private cluster: its start times out on a busy machine."""
    left = 1 if address else STARTS
    while True:
        try:
            if address:
                ray.init(address=address, **options)
            else:
                private.init(**options)
            return
        except Exception as error:  # Ray raises plain ones, too
            ray.shutdown()
            left -= 1
            reason = str(error).strip().partition("\n")[0]
            if left == 0:
                where = f"the Ray cluster at {address!r}" if address else "a private Ray cluster"
                raise CannotConnect(f"cannot reach {where}: {reason}") from error
            log.warning("Ray did not start (%s); trying again", reason)
