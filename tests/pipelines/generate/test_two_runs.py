"""Two runs on one output folder, as two processes, and what they leave there."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import LeaseLost
from cluster.storage import lease
from pipelines.errors import OutputBusy
from pipelines.generate.config import GenerateConfig
from pipelines.generate.prepare import prepare
from pipelines.output.manifest import Manifest
from tests.pipelines.generate.inprocess import (
    InProcessPool,
    make_config,
    outcome,
    run_job,
    write_prompts,
)

ROWS = 40
Start = Callable[..., BaseProcess]


def slowly(config: GenerateConfig, expires_s: float, renew_s: float) -> None:
    """Run a job that takes some seconds; ends with code 1 where it loses its lease."""
    lease.hold.__wrapped__.__kwdefaults__ |= {"expires_s": expires_s, "renew_s": renew_s}  # type: ignore[attr-defined]
    try:
        run_job(config, pool=InProcessPool(step_s=0.05))
    except LeaseLost:
        os._exit(1)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a slow run in another process and waits until it has committed a shard."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.pipelines.generate.inprocess"])
    started: list[BaseProcess] = []

    def run(config: GenerateConfig, *, expires_s: float = 60, renew_s: float = 10) -> BaseProcess:
        process = context.Process(target=slowly, args=(config, expires_s, renew_s))
        process.start()
        started.append(process)
        while process.is_alive() and not committed(config):
            time.sleep(0.01)
        assert process.is_alive()
        return process

    yield run
    for process in started:
        process.kill()
        process.join()


def committed(config: GenerateConfig) -> list[Path]:
    return sorted(Path(config.output).glob("_manifest/0*.json"))


@pytest.fixture
def config(tmp_path: Path) -> GenerateConfig:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", ROWS)
    return make_config(tmp_path, input=str(prompts), output=str(tmp_path / "out"), shard_rows=2)


@pytest.fixture
def expected(tmp_path: Path, config: GenerateConfig) -> list[Any]:
    undisturbed = replace(config, output=str(tmp_path / "undisturbed"))
    run_job(undisturbed)
    return outcome(undisturbed.output)


def sizes_fit(config: GenerateConfig) -> bool:
    """Whether every entry's file has the size that the entry says."""
    entries = [json.loads(path.read_text()) for path in committed(config)]
    folder = Path(config.output)
    return all((folder / e["file"]).stat().st_size == e["size_bytes"] for e in entries)


@pytest.mark.parametrize(
    "change", [{}, {"resume": False}, {"resume": False, "max_tokens": 3, "seed": 1}]
)
def test_the_second_is_refused_and_changes_nothing(
    config: GenerateConfig, expected: list[Any], start: Start, change: dict[str, Any]
) -> None:
    first = start(config)
    with pytest.raises(OutputBusy, match=rf"in use by another run: process {first.pid} on host"):
        run_job(replace(config, **change))
    first.join()
    assert first.exitcode == 0
    assert outcome(config.output) == expected
    assert sizes_fit(config)
    assert not prepare(config).todo


def test_a_killed_run_does_not_block(
    config: GenerateConfig, expected: list[Any], start: Start
) -> None:
    first = start(config)
    os.kill(first.pid or 0, signal.SIGKILL)
    first.join()
    began = time.monotonic()
    run_job(config)
    assert time.monotonic() - began < 10
    assert outcome(config.output) == expected
    assert sizes_fit(config)
    assert not (Path(config.output) / "_manifest" / "lease.json").exists()


@pytest.mark.parametrize("change", [{}, {"resume": False, "max_tokens": 3, "seed": 1}])
def test_a_run_paused_for_long_commits_nothing_more(
    config: GenerateConfig, tmp_path: Path, start: Start, change: dict[str, Any]
) -> None:
    first = start(config, expires_s=0.5, renew_s=0.1)
    os.kill(first.pid or 0, signal.SIGSTOP)
    time.sleep(0.6)
    second = replace(config, **change)
    run_job(second)
    before = {p: p.read_bytes() for p in Path(config.output).rglob("*") if p.is_file()}
    os.kill(first.pid or 0, signal.SIGCONT)
    first.join()
    assert first.exitcode == 1
    assert {p: p.read_bytes() for p in Path(config.output).rglob("*") if p.is_file()} == before
    alone = replace(second, output=str(tmp_path / "alone"))
    run_job(alone)
    assert outcome(config.output) == outcome(alone.output)
    assert sizes_fit(config)


def test_a_run_that_lost_its_lease_stops_in_the_middle(
    config: GenerateConfig, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease goes between two shards; the writer finds out before it writes a file."""
    commit = Manifest.commit

    def then_lose(self: Manifest, entry: Any) -> None:
        commit(self, entry)
        path = Path(config.output) / "_manifest" / "lease.json"
        path.write_text(path.read_text().replace('"token": "', '"token": "other'))

    monkeypatch.setattr(Manifest, "commit", then_lose)
    with pytest.raises(LeaseLost, match="took the output folder over"):
        run_job(config)
    assert len(committed(config)) == 1
    monkeypatch.undo()
    (Path(config.output) / "_manifest" / "lease.json").unlink()
    run_job(config)
    assert outcome(config.output) == expected
