"""An S3 server in a process of its own, which refuses or hangs for a while and forgets nothing."""

import signal
import subprocess
import sys
import time

import boto3
import pytest

from tests.ports import free_port

BUCKET = "away-at-times"
REFUSES, HANGS = "refuses", "hangs"
OUTAGES = (REFUSES, HANGS)  # no connection is accepted; connections are, and nothing answers


class S3Process:
    """The server; `end` it."""

    def __init__(self) -> None:
        self._port = free_port()
        command = [sys.executable, "-m", "tests.s3_process", str(self._port)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, **pipes)
        self._heard()

    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """The URL of an empty bucket, with the environment that leads there."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{self._port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        return f"s3://{BUCKET}"

    def be_down(self, kind: str, seconds: float) -> None:
        """Be away, and back when this returns."""
        if kind == HANGS:
            self._process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            self._process.send_signal(signal.SIGCONT)
            return
        self._toggle()
        time.sleep(seconds)
        self._toggle()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    def _toggle(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._heard()

    def _heard(self) -> None:
        assert self._process.stdout.readline(), "the S3 server has ended"


def main(port: int) -> None:
    """Serve, and with each line of the input stop or start again; a line is printed when done."""
    from moto.server import ThreadedMotoServer

    server, running = None, False
    while True:
        if running:
            server.stop()
        else:
            server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
            server.start()
        running = not running
        print("up" if running else "down", flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main(int(sys.argv[1]))
