"""A proxy before an S3 server that loses, breaks off, refuses or never gives answers: seeded."""

import http.client
import random
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = (500, 503, 429, "closed", "truncated", "silent")
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
HOPS = {"connection", "transfer-encoding", "content-length", "server", "date"}


class FlakyS3:
    """`rate`: the share of requests that fail; `count`: of those that did.

    A silent one reaches the server, and its client must give up: see `s3.ANSWER_S`.
    """

    def __init__(
        self, endpoint: str, *, rate: float, seed: int, faults: Sequence[object] = FAULTS
    ) -> None:
        self.count, self._faults = 0, faults
        self._upstream = urlsplit(endpoint).netloc
        self._random, self._rate = random.Random(seed), rate
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault(self) -> object:
        with self._lock:
            if self._random.random() >= self._rate:
                return None
            self.count += 1
            return self._random.choice(self._faults)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = self._fault()
        if isinstance(fault, int):
            handler.send_response(fault)
            handler.send_header("Content-Length", str(len(BUSY)))
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(BUSY)
            return
        handler.close_connection = fault is not None
        if fault == "closed":
            return
        upstream = http.client.HTTPConnection(self._upstream)
        upstream.request(handler.command, handler.path, body, dict(handler.headers))
        found = upstream.getresponse()
        data = found.read()
        if fault == "silent":
            handler.rfile.read(1)  # until the client closes the connection
            return
        handler.send_response(found.status)
        for name, value in found.getheaders():
            if name.lower() not in HOPS:
                handler.send_header(name, value)
        told = found.getheader("Content-Length") if handler.command == "HEAD" else str(len(data))
        handler.send_header("Content-Length", told or "0")
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if fault == "truncated" else data)
        upstream.close()
