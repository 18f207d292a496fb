"""Ctrl-C and SIGTERM of real commands, at several moments: the line, the code, what is left."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

WITHIN_S = 3.0
MARK = "PACELINE_TEST_MARK"


class Command:
    """A running command; it and all that it starts carry a mark in their environment."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        self._errors = folder / "stderr"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", *arguments],
                env={**os.environ, MARK: self.mark},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    @property
    def told(self) -> str:
        return self._errors.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        while text not in self.told:
            assert self.process.poll() is None, self.told
            time.sleep(0.02)

    def stop(self, number: signal.Signals, *, times: int = 1) -> tuple[int, float]:
        """Send a signal; the exit code and the seconds until then."""
        began = time.monotonic()
        for _ in range(times):
            self.process.send_signal(number)
            time.sleep(0.1)
        code = self.process.wait(timeout=60)
        return code, time.monotonic() - began

    def left(self) -> list[str]:
        """Processes that carry the mark, after those that are ending have had some seconds."""
        deadline = time.monotonic() + 5  # a process starts on a busy machine to end them
        while (found := list(self._marked())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _marked(self) -> Iterator[str]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    yield f"{process.pid} {process.name()}"


@pytest.fixture
def generate(checkpoints: dict[str, str], prompts: str, tmp_path: Path) -> Iterator[Command]:
    models = ["--target", checkpoints["target"], "--drafter", checkpoints["draft"]]
    places = ["--input", prompts, "--output", str(tmp_path / "out"), "--shard-rows", "1"]
    command = Command(tmp_path, "generate", *models, *places, "--max-tokens", "200", "--n", "200")
    yield command
    command.process.kill()


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("starting Ray", signal.SIGINT),
        ("loading the model", signal.SIGTERM),
        ("tokens/s", signal.SIGINT),
        ("tokens/s", signal.SIGTERM),
    ],
)
def test_an_interrupted_job_ends_soon_and_leaves_nothing(
    generate: Command, moment: str, number: signal.Signals
) -> None:
    generate.wait_for(moment)
    code, seconds = generate.stop(number)
    assert code == 128 + number
    assert seconds < WITHIN_S
    last = [line for line in generate.told.splitlines() if line.startswith("paceline:")]
    assert len(last) == 1
    assert last[0].endswith("of 23 shards are committed; the same command goes on")
    assert "Traceback" not in generate.told
    assert not generate.left()


def test_a_second_ctrl_c_ends_it_at_once(generate: Command) -> None:
    generate.wait_for("tokens/s")
    code, seconds = generate.stop(signal.SIGINT, times=2)
    assert code == 130
    assert seconds < 1
    assert not generate.left()


def test_an_interrupted_bench_says_so(
    checkpoints: dict[str, str], prompts: str, tmp_path: Path
) -> None:
    command = Command(tmp_path, "bench", "--target", checkpoints["target"], "--input", prompts)
    command.wait_for("bench:")
    code, seconds = command.stop(signal.SIGINT)
    assert (code, seconds < WITHIN_S) == (130, True)
    assert "paceline: interrupted" in command.told
    assert "Traceback" not in command.told
