"""Rows that failed for a reason that may pass: counted, and tried again by the next run."""

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from models.requests.request import Result
from pipelines.generate.command import exit_code
from pipelines.generate.config import GenerateConfig
from pipelines.generate.prepare import prepare
from pipelines.generate.reporting.history import History
from pipelines.generate.reporting.summary import Summary, summarize
from pipelines.output.failure import first_failure
from pipelines.output.manifest import Manifest
from tests.pipelines.generate.inprocess import (
    InProcessPool,
    make_config,
    outcome,
    output_rows,
    run_job,
    write_prompts,
)


class Failing(InProcessPool):
    """Some requests fail although nothing is wrong with them."""

    def __init__(self, names: Collection[str], *, invalid: bool = False) -> None:
        super().__init__()
        self._names, self._invalid = names, invalid
        self.taken: list[str] = []

    def take(self, timeout_s: float) -> list[Result]:
        results = super().take(timeout_s)
        self.taken += [result.id for result in results]
        return [self._fail(r) if r.id in self._names else r for r in results]

    def _fail(self, result: Result) -> Result:
        told = {"finish_reason": "error", "error": "its actor died", "retryable": True}
        return Result(id=result.id, tokens=(), invalid=self._invalid, **told)


@pytest.fixture
def config(tmp_path: Path) -> GenerateConfig:
    path = write_prompts(tmp_path / "in" / "prompts.jsonl", 9)
    path.write_text(path.read_text() + "{broken\n")
    return make_config(tmp_path, input=str(path), output=str(tmp_path / "out"), shard_rows=4)


@pytest.fixture
def expected(tmp_path: Path, config: GenerateConfig) -> list[Any]:
    undisturbed = replace(config, output=str(tmp_path / "undisturbed"))
    run_job(undisturbed)
    return outcome(undisturbed.output)


def summary_of(manifest: Manifest) -> Summary:
    return summarize(
        manifest.entries.values(),
        earlier=[],
        earlier_seconds=0.0,
        history=History(),
        startup_seconds=0.0,
        kind="text",
        output="",
        noise="",
        config={},
    )


def test_they_are_marked_and_counted(config: GenerateConfig) -> None:
    summary = summary_of(run_job(config, pool=Failing({"0/1/0", "1/3/0"})))
    rows = output_rows(config.output)
    assert [row["retryable"] for row in rows] == [i in (1, 7) for i in range(10)]
    assert rows[1]["error"] == "its actor died"
    assert rows[1]["tokens"] is None
    assert (summary.rows_failed, summary.rows_retryable) == (3, 2)
    assert exit_code(summary) == 3


def test_those_without_room_need_another_command(config: GenerateConfig) -> None:
    summary = summary_of(run_job(config, pool=Failing({"0/1/0"}, invalid=True)))
    assert (summary.rows_retryable, summary.rows_without_room) == (1, 1)
    assert exit_code(summary) == 0
    assert [shard.index for shard in prepare(config).todo] == [0]


def test_the_first_of_them_is_told(config: GenerateConfig) -> None:
    manifest = run_job(config, pool=Failing({"1/3/0"}))
    assert told_of(manifest) == "7: its actor died"
    assert told_of(run_job(config)).startswith("prompts.jsonl:10: not JSON: ")
    write_prompts(Path(config.input), 3)
    assert told_of(run_job(replace(config, output=f"{config.output}-2"))) == ""


def told_of(manifest: Manifest) -> str:
    return first_failure(manifest.url, manifest.entries.values(), id_field="id") or ""


def test_only_their_shards_run_again(config: GenerateConfig, expected: list[Any]) -> None:
    run_job(config, pool=Failing({"1/3/0"}))
    stamps = {p: p.stat().st_mtime_ns for p in Path(config.output).glob("part-*")}
    assert [shard.index for shard in prepare(config).todo] == [1]
    again = Failing({"1/0/0"})
    manifest = run_job(config, pool=again)
    assert sorted(again.taken) == ["1/0/0", "1/1/0", "1/2/0", "1/3/0"]
    assert summary_of(manifest).rows_retryable == 1
    manifest = run_job(config)
    assert outcome(config.output) == expected
    assert exit_code(summary_of(manifest)) == 0
    changed = [p.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp]
    assert changed == ["part-00001.parquet"]
    assert not prepare(config).todo
    assert json.loads((Path(config.output) / "_manifest/00001.json").read_text())["seconds"] > 0


def test_a_run_that_dies_between_file_and_entry_is_mended(
    config: GenerateConfig, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(config, pool=Failing({"1/3/0"}))

    def die(self: Manifest, entry: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            run_job(config)
    part = pq.read_table(Path(config.output) / "part-00001.parquet")
    assert part.column("retryable").to_pylist() == [False] * 4  # whole, and the new one
    assert [shard.index for shard in prepare(config).todo] == [1]
    run_job(config)
    assert outcome(config.output) == expected


def test_a_job_without_a_good_row_does_not_end_well(config: GenerateConfig) -> None:
    names = {f"{shard}/{row}/0" for shard in range(3) for row in range(4)}
    assert exit_code(summary_of(run_job(config, pool=Failing(names)))) == 1
    Path(config.input).write_text("{broken\n")
    alone = replace(config, output=config.output + "-broken")
    assert exit_code(summary_of(run_job(alone))) == 1


def test_rows_that_are_wrong_are_not_tried_again(config: GenerateConfig) -> None:
    manifest = run_job(config)
    assert summary_of(manifest).rows_failed == 1
    assert not prepare(config).todo
    row = output_rows(config.output)[9]
    assert (row["id"], row["retryable"]) == ("prompts.jsonl:10", False)
    assert exit_code(summary_of(manifest)) == 0
