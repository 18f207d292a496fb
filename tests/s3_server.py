"""An S3 server on this machine that can be stopped and started."""

import uuid

from moto.server import ThreadedMotoServer

from tests.ports import free_port


class Server:
    """An S3 server that can be stopped and started, at one address, with what it held before."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bucket = f"interrupted-{uuid.uuid4().hex[:8]}"  # servers of a process share buckets
        self.start()

    def start(self) -> None:
        self._running = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._running.start()

    def stop(self) -> None:
        self._running.stop()
