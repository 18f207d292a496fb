"""A command that drains is told of the first SIGTERM; any other signal still ends it."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

PROGRAM = """
import sys, time
from pipelines.interruption import draining, obey_signals

obey_signals()
try:
    with draining(float(sys.argv[1])) as drain:
        print("ready", flush=True)
        while not drain.asked:
            time.sleep(0.01)
        print("asked", flush=True)
        sys.stdin.read()
        print("drained", flush=True)
except KeyboardInterrupt:
    sys.exit(7)
"""


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[bytes]"]:
    """May drain for so many seconds as its parameter says."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    limit = str(getattr(request, "param", 600))
    with subprocess.Popen([sys.executable, "-c", PROGRAM, limit], **pipes) as made:
        try:
            assert made.stdout is not None
            assert made.stdout.readline() == b"ready\n"
            yield made
        finally:
            made.kill()


def test_the_first_sigterm_lets_it_come_to_its_end(program: "subprocess.Popen[bytes]") -> None:
    program.send_signal(signal.SIGTERM)
    assert program.stdout.readline() == b"asked\n"
    out, told = program.communicate()
    assert (program.returncode, out, told) == (0, b"drained\n", b"")


def test_another_signal_ends_it(program: "subprocess.Popen[bytes]") -> None:
    program.send_signal(signal.SIGTERM)
    assert program.stdout.readline() == b"asked\n"
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) in (7, 143)
    assert b"paceline: interrupted" in program.stderr.read()


def test_ctrl_c_ends_it_at_once(program: "subprocess.Popen[bytes]") -> None:
    program.send_signal(signal.SIGINT)
    assert program.wait(30) in (7, 130)
    assert program.stdout.read() == b""


@pytest.mark.parametrize("program", [0.1], indirect=True)
def test_one_that_hangs_is_ended_after_its_limit(program: "subprocess.Popen[bytes]") -> None:
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) == 143
    assert b"paceline: interrupted" in program.stderr.read()
