"""SIGKILL the driver at every moment of its writing, resume, compare."""

import json
import multiprocessing
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.generate.config import GenerateConfig
from tests.pipelines.generate import killed
from tests.pipelines.generate.inprocess import make_config, outcome, run_job, write_prompts

ROWS, SHARDS = 11, 3

Kill = Callable[[GenerateConfig, int, int], int | None]


@pytest.fixture(scope="module")
def run_killed() -> Kill:
    """Runs a job in a process that is killed; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.pipelines.generate.killed", "pandas"])

    def run(config: GenerateConfig, kill_at: int, luck: int) -> int | None:
        process = context.Process(target=killed.run, args=(config, kill_at, luck))
        process.start()
        process.join()
        return process.exitcode

    return run


@pytest.fixture
def config(tmp_path: Path) -> GenerateConfig:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", ROWS)
    return make_config(tmp_path, input=str(prompts), output=str(tmp_path / "out"), shard_rows=4)


@pytest.fixture
def expected(tmp_path: Path, config: GenerateConfig) -> list[Any]:
    undisturbed = make_config(
        tmp_path, input=config.input, output=str(tmp_path / "undisturbed"), shard_rows=4
    )
    run_job(undisturbed)
    return outcome(undisturbed.output)


def committed_shards(folder: Path) -> list[int]:
    """What a reader may rely on: every committed file is whole."""
    found = []
    for path in sorted((folder / "_manifest").glob("0*.json")):
        entry = json.loads(path.read_text())
        assert pq.read_table(folder / entry["file"]).num_rows == entry["rows"]
        found.append(entry["shard"])
    return found


def test_killed_at_every_moment(
    run_killed: Kill, config: GenerateConfig, expected: list[Any], tmp_path: Path
) -> None:
    out, kill_at, survived = Path(config.output), 0, False
    numbers = set()
    while not survived:
        survived = run_killed(config, kill_at, kill_at) == 0
        before = committed_shards(out)
        numbers.add(len(before))
        stamps = {i: (out / f"part-{i:05d}.parquet").stat().st_mtime_ns for i in before}
        run_job(config)
        assert outcome(config.output) == expected, f"killed at moment {kill_at}"
        for i, stamp in stamps.items():  # committed shards are not run again
            assert (out / f"part-{i:05d}.parquet").stat().st_mtime_ns == stamp
        assert not list(out.rglob(".*"))
        out = tmp_path / f"out{kill_at}"
        config = make_config(tmp_path, input=config.input, output=str(out), shard_rows=4)
        kill_at += 1
    assert numbers == {0, 1, 2, 3}
    assert kill_at > 2 * (2 * SHARDS + 1)


def test_killed_again_and_again(
    run_killed: Kill, config: GenerateConfig, expected: list[Any]
) -> None:
    luck = random.Random(1)
    codes = [run_killed(config, luck.randrange(12), i) for i in range(12)]
    assert codes[0] == -signal.SIGKILL
    run_job(config)
    assert outcome(config.output) == expected


def test_killed_while_starting_over(
    run_killed: Kill, config: GenerateConfig, expected: list[Any], tmp_path: Path
) -> None:
    run_job(config)
    again = make_config(
        tmp_path, input=config.input, output=config.output, shard_rows=4, resume=False
    )
    for kill_at in range(16):
        assert run_killed(again, kill_at, 0) == -signal.SIGKILL
        committed_shards(Path(config.output))
        run_job(config)
        assert outcome(config.output) == expected
