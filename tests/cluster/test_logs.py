"""Logs: lines of text or JSON from all processes of a command."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from cluster import logs


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging as it was before."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PACELINE_LOG")}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(logs, "_chosen", {})
    root, packages = logging.getLogger(), [logging.getLogger(each) for each in logs.PACKAGES]
    handlers, levels = list(root.handlers), [each.level for each in packages]
    yield
    root.handlers[:] = handlers
    for package, level in zip(packages, levels, strict=True):
        package.setLevel(level)


def record(_ray: int = 1, **facts: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "actors.pool", "levelno": 30, "levelname": "WARNING"})
    made.msg, made.args = "%s ended", ("target-0",)
    made.__dict__.update(facts, _ray=_ray)
    return made


def test_a_json_line_has_the_facts_beside_the_message():
    told = json.loads(logs.JsonLines("manager").format(record(request="cmpl-1", rows=3)))
    assert told.pop("time").endswith("Z")
    assert told.pop("pid") == os.getpid()
    assert told == {
        "level": "warning",
        "logger": "actors.pool",
        "process": "manager",
        "message": "target-0 ended",
        "request": "cmpl-1",
        "rows": 3,
    }


def test_a_json_line_is_one_line_with_an_exception_in_it():
    try:
        raise ValueError("a\nb")
    except ValueError:
        line = logs.JsonLines("manager").format(record(exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "ValueError: a\nb" in json.loads(line)["exception"]


def test_a_text_line_ends_with_the_facts():
    line = logs.Lines("manager").format(record(request="cmpl-1"))
    assert line.endswith("warning manager: target-0 ended (request=cmpl-1)")


def test_nobody_forges_a_line():
    line = logs.Lines("ingress").format(record(row="a\n09:00:00 error: forged\r\x1b[2J"))
    assert line.endswith("(row=a\\n09:00:00 error: forged\\r\\x1b[2J)")
    assert line.isprintable()


def test_values_of_the_environment_that_mean_nothing_are_told(capfd: pytest.CaptureFixture[str]):
    os.environ[logs.LEVEL] = "verbose"
    logs.set_up_command()
    assert "PACELINE_LOG_LEVEL=verbose is passed over: one of debug" in capfd.readouterr().err


def test_without_a_command_and_an_environment_nothing_changes():
    before = list(logging.getLogger().handlers)
    logs.set_up("target-0")
    assert logging.getLogger().handlers == before


WORKER = """
import logging, os, time
from cluster import logs
logs.set_up("target-0")
log = logging.getLogger("actors.target")
log.debug("not asked for")
log.info("ready", extra={"request": "r"})
"""


@pytest.mark.skipif(not hasattr(logs.socket, "SO_PASSCRED"), reason="needs Linux's credentials")
def test_the_command_prints_what_its_processes_log(capfd: pytest.CaptureFixture[str]):
    logs.choose("info", "json")
    assert logs.chosen() == {logs.LEVEL: "info", logs.FORMAT: "json"}
    logs.set_up_command()
    logging.getLogger("pipelines.cli").info("of its own")
    subprocess.run([sys.executable, "-c", WORKER], check=True, env=os.environ)
    lines, deadline = list[str](), time.monotonic() + 20
    while len(lines) < 2 and time.monotonic() < deadline:
        lines += capfd.readouterr().err.splitlines()
        time.sleep(0.01)
    told = [json.loads(line) for line in lines]
    assert [(each["process"], each["message"]) for each in told] == [
        ("paceline", "of its own"),
        ("target-0", "ready"),
    ]
    assert told[1]["request"] == "r"


def test_lines_that_nobody_takes_go_to_standard_error():
    environment = {**os.environ, logs.SOCKET: "paceline-nobody", logs.LEVEL: "info"}
    done = subprocess.run(
        [sys.executable, "-c", WORKER], check=True, env=environment, capture_output=True, text=True
    )
    assert done.stderr.strip().endswith("info    target-0: ready (request=r)")


@pytest.mark.parametrize(
    ("name", "level", "told"),
    [
        ("actors.trainer", logging.INFO, True),
        ("/site-packages/ray/train/context.py", logging.INFO, False),  # Ray's name of a logger
        ("/site-packages/ray/train/context.py", logging.WARNING, True),
    ],
)
def test_progress_of_other_packages_is_not_told(name: str, level: int, told: bool):
    handler = logging.StreamHandler()
    logs._install(handler, "trainer-0")
    assert bool(handler.filter(logging.makeLogRecord({"name": name, "levelno": level}))) is told
