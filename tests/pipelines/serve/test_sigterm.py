"""SIGTERM to `paceline serve`: open streams come to their end, then the process ends."""

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.serve.following import Body, opened
from tests.pipelines.serve.test_command import TARGET, ready
from tests.pipelines.test_interruption import Command
from tests.ports import free_port

DRAIN_S = 60
TEXT: Body = {"prompt": "def read_lines(path):\n", "max_tokens": 300, "ignore_eos": True}
BODIES: dict[str, Body] = {
    "sampled": TEXT | {"seed": 1, "n": 2},
    "greedy": TEXT | {"temperature": 0, "frequency_penalty": 0.6},
}
SHORT: Body = {"prompt": "Once", "max_tokens": 1}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def command(port: int, tmp_path: Path) -> Iterator[Command]:
    """A server that is ready."""
    options = ["--target", TARGET, "--drafter", "lookup", "--threads", "1", "--port", str(port)]
    made = Command(tmp_path, "serve", *options, "--drain-seconds", str(DRAIN_S))
    try:
        while not ready(f"http://127.0.0.1:{port}"):
            assert made.process.poll() is None, made.told
            time.sleep(0.2)
        yield made
    finally:
        made.process.kill()


def status(url: str, body: Body | None = None) -> tuple[int, str | None]:
    """Of an answer, and when to come again, if it says so."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        return error.code, error.headers["retry-after"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_open_streams_end_and_new_requests_are_refused(command: Command, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    with opened(port, BODIES) as streams:
        command.process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        while (refused := status(f"{url}/v1/completions", SHORT))[0] == 200:
            pass  # the command has not seen the signal yet
        is_ready, lives = status(f"{url}/readyz")[0], status(f"{url}/health")[0]
        assert streams.running, "they were too short"
        found = streams.found()
    code = command.process.wait(timeout=DRAIN_S)
    took = time.monotonic() - asked
    assert refused[0] == 503
    assert int(refused[1] or 0) > 0
    assert (is_ready, lives) == (503, 200)
    assert found == streams.expected
    assert [each.cuts for each in streams.clients.values()] == [0, 0]
    assert code == 0, command.told
    assert "the manager does not answer" not in command.told, "all ended as it was told to"
    assert took < DRAIN_S
    assert not command.left()
