"""`paceline serve` as a program: it answers, and Ctrl-C leaves nothing running."""

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.serve.command import ways
from pipelines.serve.config import ServeConfig
from tests.pipelines.test_interruption import Command
from tests.ports import free_port

TARGET = "examples/models/text-target"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_answers_until_it_is_interrupted(tmp_path: Path) -> None:
    port = free_port()
    command = Command(tmp_path, "serve", "--target", TARGET, "--port", str(port), "--threads", "1")
    try:
        url = f"http://127.0.0.1:{port}"
        while not ready(url):
            assert command.process.poll() is None, command.told
            time.sleep(0.2)
        body = json.dumps({"prompt": "Once", "max_tokens": 4, "seed": 1}).encode()
        headers = {"content-type": "application/json"}
        asked = urllib.request.Request(f"{url}/v1/completions", body, headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == 4
        code, seconds = command.stop(signal.SIGINT)
    finally:
        command.process.kill()
    told = ["starting Ray, then loading text-target ...", "", "paceline: the server has stopped"]
    assert (code, command.told.splitlines()) == (130, told)
    assert seconds < 10
    assert not command.left()


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def test_it_tells_how_it_is_asked() -> None:
    def running(name: str, kind: str) -> SimpleNamespace:
        return SimpleNamespace(facts=SimpleNamespace(name=name, kind=kind))

    server: Any = SimpleNamespace(url="http://h:1", models=(running("m", "text"),))
    curl = "  curl http://h:1/v1/completions -H 'Content-Type: application/json' \\"
    body = '{"prompt": "Once upon a time", "max_tokens": 32, "seed": 1}'
    page = "  playground: http://h:1/"
    assert list(ways(server, key=False)) == [curl, f"      -d '{body}'", page]
    server.models = (*server.models, running("d", "images"))
    told = list(ways(server, key=True))
    assert (len(told), told[-1]) == (5, page)
    assert "-H 'Authorization: Bearer KEY'" in told[0]
    assert told[3].endswith(""" '{"model": "d", "prompt": "3", "seed": 1}'""")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--target", "none"], "none"),
        (["--target", "examples/models/digits-raster", "--drafter", "lookup"], "generates images"),
        (["--target", TARGET, "--host", "0.0.0.0"], "need --api-key-file"),
        (["--target", TARGET, "--drafter", "lokup"], "did you mean 'lookup'"),
        (["--target", TARGET, "--max-length", "5000"], "context of 1024"),
        (["--target", TARGET, "--memory", "lots"], "memory='lots'"),
        (["--target", TARGET, "--ingresses", "2", "--max-per-key", "3"], "max_per_key=3"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(options, told, capsys) -> None:
    assert main(["serve", *options]) == 2
    assert told in capsys.readouterr().err


def test_a_port_in_use_is_refused(capsys) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--target", TARGET, "--port", str(taken.getsockname()[1])]) == 2
    assert "a free one" in capsys.readouterr().err


def test_help_teaches(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = capsys.readouterr().out
    assert "curl http://127.0.0.1:8000/v1/completions" in told
    assert "--api-key-file" in told


def test_every_option_of_the_engine_reaches_it() -> None:
    given = {"memory": "64MiB", "dtype": "bfloat16", "draft_tokens": 3, "prefill_chunk": 32}
    engine = ServeConfig(target=TARGET, drafter="lookup", **given).engine()
    assert {name: getattr(engine, name) for name in given} == given
    assert engine.target == str(Path(TARGET).absolute())
    assert engine.drafter == "lookup"
