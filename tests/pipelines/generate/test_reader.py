"""The reader of the tests of faults sees what it is there for; a job shows it nothing wrong."""

import time
from pathlib import Path

import pytest

from pipelines.generate.config import GenerateConfig
from pipelines.output.manifest import Entry, Manifest
from tests.pipelines.generate import reader as reading
from tests.pipelines.generate.inprocess import make_config, run_job, write_prompts
from tests.pipelines.generate.reader import Reader, watched

ROWS, SHARD_ROWS = 12, 4


def job(tmp_path: Path) -> GenerateConfig:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", ROWS)
    out = str(tmp_path / "out")
    return make_config(tmp_path, input=str(prompts), output=out, shard_rows=SHARD_ROWS)


def test_a_job_shows_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BETWEEN_S", 0.005)
    config, real, shards = job(tmp_path), Manifest.commit, list[int]()
    with watched(config.output, rows=SHARD_ROWS) as reader:

        def commit(self: Manifest, entry: Entry) -> None:
            """Between two looks of the reader."""
            await_look(reader)
            real(self, entry)
            await_look(reader)
            shards.append(entry.shard)

        monkeypatch.setattr(Manifest, "commit", commit)
        run_job(config)
    assert sorted(shards) == list(range(ROWS // SHARD_ROWS))
    assert reader.early > 0


def await_look(reader: Reader) -> None:
    """One that begins after this call."""
    end = reader.looks + 2
    while reader.looks < end:
        assert reader.wrong == []
        time.sleep(0.001)


def test_parts_of_files_and_entries_without_files_are_seen(tmp_path: Path) -> None:
    config = job(tmp_path)
    run_job(config)
    out = Path(config.output)
    (out / "part-00000.parquet").write_bytes(b"PAR1")
    (out / "part-00001.parquet").unlink()
    (out / "_manifest" / "00002.json").unlink()
    (out / "more.parquet").touch()
    (out / ".part-00003.parquet.tmp").touch()
    reader = Reader(config.output, SHARD_ROWS)
    reader.look()
    assert [told.split(":")[0] for told in reader.wrong] == [
        "more.parquet is visible",
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert reader.early == 1
