import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.registry import MAPS
from models.requests.request import Request, Result
from pipelines.errors import JobFailed
from pipelines.generate.drive import Drive
from pipelines.generate.prepare import Prepared, prepare
from pipelines.generate.rows.writer import LocalWriter, ShardWriter
from pipelines.inputs.prefetch import Prefetch
from pipelines.inputs.seeds import row_seed
from tests.pipelines.generate.inprocess import (
    ByteTokenizer,
    InProcessPool,
    make_config,
    outcome,
    output_rows,
    run_job,
    tables,
    token_at,
    write_prompts,
)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    return str(write_prompts(tmp_path / "in" / "prompts.jsonl", 23))


def job(tmp_path: Path, prompts: str, **values: Any) -> Any:
    settings: dict[str, Any] = {"input": prompts, "output": str(tmp_path / "out"), "shard_rows": 5}
    return make_config(tmp_path, **{**settings, **values})


def drive(prepared: Prepared, source: Iterator[pa.Table]) -> None:
    writer = LocalWriter(ShardWriter(prepared.layout, ByteTokenizer()))
    with Prefetch(source) as read:
        Drive(prepared.job, InProcessPool(), writer, prepared.manifest).run(read)


def test_every_prompt_has_its_row_in_order(tmp_path: Path, prompts: str) -> None:
    manifest = run_job(job(tmp_path, prompts))
    rows = output_rows(str(tmp_path / "out"))
    assert [row["id"] for row in rows] == list(range(23))
    assert [row["prompt"] for row in rows] == [f"prompt number {i}" for i in range(23)]
    assert sorted(manifest.entries) == [0, 1, 2, 3, 4]
    assert sum(entry.rows for entry in manifest.entries.values()) == 23
    for row in rows:
        assert row["seed"] == row_seed(5, str(row["id"]), 0)
        length = len(row["tokens"])
        assert row["tokens"] == [token_at(row["seed"], i) for i in range(length)]
        assert row["completion"] == bytes(row["tokens"]).decode()
        assert row["finish_reason"] == "length"
        assert row["exactness"] == "identical"
        assert row["error"] is None


def test_a_folder_reads_as_one_table(tmp_path: Path, prompts: str) -> None:
    run_job(job(tmp_path, prompts))
    assert pq.read_table(tmp_path / "out").num_rows == 23


def test_rows_do_not_depend_on_batches_or_shards(tmp_path: Path, prompts: str) -> None:
    outcomes = []
    for i, (slots, shard_rows) in enumerate([(1, 5), (4, 5), (16, 1), (3, 100)]):
        out = str(tmp_path / f"out{i}")
        config = job(tmp_path, prompts, output=out, shard_rows=shard_rows)
        run_job(config, pool=InProcessPool(slots=slots, luck=i))
        outcomes.append(outcome(out))
    assert all(rows == outcomes[0] for rows in outcomes)


def test_samples_are_rows(tmp_path: Path, prompts: str) -> None:
    run_job(job(tmp_path, prompts, n=3))
    rows = output_rows(str(tmp_path / "out"))
    assert [(row["id"], row["sample"]) for row in rows] == [
        (i, s) for i in range(23) for s in range(3)
    ]
    assert len({row["seed"] for row in rows}) == 69
    run_job(job(tmp_path, prompts, n=1, output=str(tmp_path / "one")))
    first = [row for row in outcome(str(tmp_path / "out")) if row["sample"] == 0]
    assert [row["tokens"] for row in first] == [
        row["tokens"] for row in outcome(str(tmp_path / "one"))
    ]


def test_requests_carry_the_map_from_noise_to_tokens(
    tmp_path: Path, prompts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPS, "quantile", "tests.models.toys:quantile_map")
    told = []

    class Watched(InProcessPool):
        def submit(self, requests: list[Request]) -> None:
            told.extend(request.noise for request in requests)
            super().submit(requests)

    run_job(job(tmp_path, prompts, noise="quantile"), pool=Watched(slots=4))
    assert set(told) == {"quantile"}
    assert len(told) == 23


def test_the_batch_stays_full_across_shards(tmp_path: Path, prompts: str) -> None:
    pool = InProcessPool(slots=4, step_s=0.01)
    run_job(job(tmp_path, prompts, shard_rows=2, max_tokens=9), pool=pool)
    running = pool.sizes[: -pool.sizes[::-1].index(4)]  # up to the last full step
    assert min(running[2:]) == 4  # at first only one shard has been read


def test_no_more_shards_are_open_than_needed(tmp_path: Path, prompts: str) -> None:
    taken = []

    def counted(source: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in source:
            taken.append(len(prepared.manifest.entries))
            yield table

    prompts = str(write_prompts(tmp_path / "many" / "prompts.jsonl", 200))
    config = job(tmp_path, prompts, shard_rows=1)
    prepared = prepare(config)
    drive(prepared, counted(tables(prepared)))
    ahead = [read - committed for read, committed in enumerate(taken)]
    assert max(ahead) < 40  # of 200: 16, what the pool holds twice, and what is prefetched


class TooLong(InProcessPool):
    """Refuses every request, as the loop refuses a prompt that does not fit."""

    def take(self, timeout_s: float) -> list[Result]:
        told = "prompt of 9 tokens and max_tokens=8 make 17; at most 16 fit"
        return [
            Result(id=r.id, tokens=(), finish_reason="error", error=f"request {r.id!r}: {told}")
            for r in super().take(timeout_s)
        ]


def test_errors_of_rows_do_not_name_requests_of_the_job(tmp_path: Path, prompts: str) -> None:
    run_job(job(tmp_path, prompts), pool=TooLong())
    errors = {row["error"] for row in output_rows(str(tmp_path / "out"))}
    assert errors == {"prompt of 9 tokens and max_tokens=8 make 17; at most 16 fit"}


def test_results_that_come_twice_count_once(tmp_path: Path, prompts: str) -> None:
    class Stutter(InProcessPool):
        def take(self, timeout_s: float) -> list[Result]:
            results = super().take(timeout_s)
            self.seen = getattr(self, "seen", [])
            self.seen += results
            return results + self.seen[-3:] + results

    run_job(job(tmp_path, prompts), pool=Stutter())
    run_job(job(tmp_path, prompts, output=str(tmp_path / "again")))
    assert outcome(str(tmp_path / "out")) == outcome(str(tmp_path / "again"))


def test_blocks_may_come_in_pieces_and_in_any_order(tmp_path: Path, prompts: str) -> None:
    def shuffled(source: Iterator[pa.Table]) -> Iterator[pa.Table]:
        whole = list(source)
        halves = [table.slice(2) for table in whole] + [table.slice(0, 2) for table in whole]
        yield from (half for half in halves if half.num_rows)

    prepared = prepare(job(tmp_path, prompts))
    drive(prepared, shuffled(tables(prepared)))
    run_job(job(tmp_path, prompts, output=str(tmp_path / "again")))
    assert outcome(str(tmp_path / "out")) == outcome(str(tmp_path / "again"))


def test_an_input_that_ends_early_stops_the_job(tmp_path: Path, prompts: str) -> None:
    prepared = prepare(job(tmp_path, prompts))
    short = list(tables(prepared))[:-1]
    with pytest.raises(JobFailed, match="the rows of 1 shards"):
        drive(prepared, iter(short))


def test_an_error_while_reading_stops_the_job(tmp_path: Path, prompts: str) -> None:
    def breaking() -> Iterator[pa.Table]:
        yield next(tables(prepared))
        time.sleep(0.05)
        raise OSError("disk gone")

    prepared = prepare(job(tmp_path, prompts))
    with pytest.raises(OSError, match="disk gone"):
        drive(prepared, breaking())
    assert set(run_job(job(tmp_path, prompts)).entries) == {0, 1, 2, 3, 4}
