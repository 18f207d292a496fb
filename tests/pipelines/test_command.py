"""The `paceline generate` command as a user runs it, each time on a cluster of its own."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster import storage
from tests.pipelines.inprocess import outcome, write_prompts

pytestmark = pytest.mark.slow


def command(checkpoints: dict[str, str], *options: str) -> list[str]:
    program = [sys.executable, "-m", "pipelines.cli", "generate", "--target", checkpoints["target"]]
    fixed = ["--max-tokens", "60", "--shard-rows", "3", "--batch-size", "2", "--threads", "1"]
    return [*program, *fixed, "--no-progress", *options]


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


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


@pytest.mark.timeout(600)
def test_killed_and_run_again(tmp_path: Path, checkpoints: dict[str, str]) -> None:
    prompts = str(write_prompts(tmp_path / "in" / "prompts.jsonl", 40))
    whole = command(checkpoints, "--input", prompts, "--output", str(tmp_path / "whole"))
    done = run(whole)
    assert done.returncode == 0, done.stderr
    assert "rows             40" in done.stdout
    out = tmp_path / "out"
    again = command(checkpoints, "--input", prompts, "--output", str(out), "--drafter", "lookup")
    for committed in (0, 2, 5):
        kill_when(again, out, committed)
    done = run(again)
    assert done.returncode == 0, done.stderr
    assert "from earlier runs" in done.stdout
    assert outcome(str(out)) == outcome(str(tmp_path / "whole"))
    other = run([*again, "--temperature", "0"])
    assert other.returncode == 2
    assert "temperature was 1.0, is 0.0" in other.stderr
    assert other.stderr.count("\n") == 1


@pytest.mark.timeout(300)
def test_from_s3_to_s3(tmp_path: Path, checkpoints: dict[str, str], s3_bucket: str) -> None:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", 10)
    local = ["--input", str(prompts), "--output", str(tmp_path / "out")]
    storage.publish(f"{s3_bucket}/in/prompts.jsonl", prompts.read_bytes())
    remote = ["--input", f"{s3_bucket}/in", "--output", f"{s3_bucket}/out"]
    for places in (local, remote):
        done = run(command(checkpoints, *places))
        assert done.returncode == 0, done.stderr
    assert outcome(f"{s3_bucket}/out") == outcome(str(tmp_path / "out"))
    assert storage.file_size(f"{s3_bucket}/out/_summary.json")


def test_failed_rows_are_told(tmp_path: Path, checkpoints: dict[str, str]) -> None:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", 3)
    prompts.write_text(prompts.read_text() + "{\n")
    places = ["--input", str(prompts), "--output", str(tmp_path / "out")]
    done = run(command(checkpoints, *places))
    assert done.returncode == 0
    assert "rows             4, 1 of them failed" in done.stdout
    assert "1 of 4 rows failed: see their column `error`" in done.stderr
