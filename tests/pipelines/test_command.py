"""The `paceline generate` command as a user runs it: in a process of its own.

Some join the session's cluster by its address, others start one, which takes longer than the job.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import storage
from tests.pipelines.generate.inprocess import outcome, write_prompts

pytestmark = [pytest.mark.slow, pytest.mark.ray]
GOOD = 40  # rows of the whole job's input; one more is broken
LONG = 500  # rows of a job that another run meets


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A command that has ended, its input and its rows."""

    told: subprocess.CompletedProcess[str]
    prompts: str
    rows: list[Mapping[str, Any]]


def command(checkpoints: dict[str, str], *options: str) -> list[str]:
    program = [sys.executable, "-m", "pipelines.cli", "generate", "--target", checkpoints["target"]]
    fixed = ["--max-tokens", "60", "--shard-rows", "3", "--batch-size", "2", "--threads", "1"]
    return [*program, *fixed, "--no-progress", *options]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def kill_when(arguments: list[str], folder: Path, committed: int) -> None:
    """SIGKILL the driver as soon as so many shards are committed."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if len(list(folder.glob("_manifest/0*.json"))) >= committed:
            time.sleep(random.Random(committed).random() / 2)
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()


@pytest.fixture(scope="module")
def joined(ray_cluster: None) -> list[str]:
    """The options with which a command joins the session's cluster; it finds the token itself."""
    import ray

    return ["--address", ray.get_runtime_context().gcs_address]


@pytest.fixture(scope="module")
def whole(
    joined: list[str], checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """An undisturbed job."""
    folder = tmp_path_factory.mktemp("whole")
    prompts = write_prompts(folder / "in" / "prompts.jsonl", GOOD)
    prompts.write_text(prompts.read_text() + "{\n")
    out = str(folder / "out")
    told = run(command(checkpoints, *joined, "--input", str(prompts), "--output", out))
    assert told.returncode == 0, told.stderr
    return Finished(told=told, prompts=str(prompts), rows=outcome(out))


@pytest.mark.timeout(600)
def test_killed_and_run_again(
    tmp_path: Path, checkpoints: dict[str, str], joined: list[str], whole: Finished
) -> None:
    out = tmp_path / "out"
    places = ["--input", whole.prompts, "--output", str(out)]
    again = command(checkpoints, *places, "--drafter", "lookup")
    for committed, where in ((0, []), (2, []), (5, joined)):
        kill_when([*again, *where], out, committed)
    done = run([*again, *joined])
    assert done.returncode == 0, done.stderr
    assert "from earlier runs" in done.stdout
    assert outcome(str(out)) == whole.rows
    assert "this run         " in done.stdout
    other = run([*again, "--temperature", "0"])
    assert other.returncode == 2
    assert "temperature was 1.0, is 0.0" in other.stderr
    assert other.stderr.count("\n") == 1


@pytest.mark.timeout(600)
def test_two_runs_on_one_folder(
    tmp_path: Path, checkpoints: dict[str, str], joined: list[str], whole: Finished
) -> None:
    """The second one, whatever it was told to do, leaves the first one's rows alone."""
    out, prompts = tmp_path / "out", write_prompts(tmp_path / "prompts.jsonl", LONG)
    first = command(checkpoints, *joined, "--input", str(prompts), "--output", str(out))
    with subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run1:
        while run1.poll() is None and not list(out.glob("_manifest/0*.json")):
            time.sleep(0.05)
        second = run([*first, "--no-resume", "--max-tokens", "9"])
        told = run1.communicate()
    assert second.returncode == 2, second.stderr
    assert f"in use by another run: process {run1.pid} on host" in second.stderr
    assert second.stderr.count("\n") == 1
    assert run1.returncode == 0, told
    rows = outcome(str(out))
    assert len(rows) == LONG
    assert [r["tokens"] for r in rows[:GOOD]] == [r["tokens"] for r in whole.rows[:GOOD]]
    again = run(first)
    assert again.returncode == 0
    assert "nothing was left to do" in again.stdout


@pytest.mark.timeout(300)
def test_from_s3_to_s3(
    tmp_path: Path, checkpoints: dict[str, str], whole: Finished, s3_bucket: str
) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 10)
    storage.publish(f"{s3_bucket}/in/prompts.jsonl", prompts.read_bytes())
    places = ["--input", f"{s3_bucket}/in", "--output", f"{s3_bucket}/out"]
    done = run(command(checkpoints, *places))
    assert done.returncode == 0, done.stderr
    rows = [{**row, "id": str(row["id"])} for row in outcome(f"{s3_bucket}/out")]
    assert rows == whole.rows[:10]  # there ids are texts: a line without one got its place
    assert storage.file_size(f"{s3_bucket}/out/_summary.json")


def test_failed_rows_are_told(whole: Finished) -> None:
    assert f"rows             {GOOD + 1}, 1 of them failed" in whole.told.stdout
    assert f"1 of {GOOD + 1} rows failed: see their column `error`" in whole.told.stderr
    assert f"The first is row prompts.jsonl:{GOOD + 1}: not JSON: " in whole.told.stderr
