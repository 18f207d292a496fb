from pathlib import Path
from typing import Any

import pytest

from pipelines.generate import in_driver
from pipelines.generate.drive import Drive
from pipelines.generate.prepare import prepare
from pipelines.inputs.prefetch import Prefetch
from tests.pipelines.generate.inprocess import (
    ByteTokenizer,
    InProcessPool,
    make_config,
    outcome,
    run_job,
    write_prompts,
)


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", 11)
    return {"input": str(prompts), "shard_rows": 4}


def test_a_small_job_in_the_driver_writes_the_same_rows(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    run_job(make_config(tmp_path, output=str(tmp_path / "expected"), **given))
    job = prepare(make_config(tmp_path, output=str(tmp_path / "out"), **given))
    codec = ByteTokenizer()
    with Prefetch(in_driver.tables(job, codec)) as tables, in_driver.writer(job, codec) as writer:
        Drive(job.job, InProcessPool(), writer, job.manifest).run(tables)
    assert outcome(str(tmp_path / "out")) == outcome(str(tmp_path / "expected"))


@pytest.mark.parametrize(("n", "small"), [(1, True), (1000, False)])
def test_many_rows_are_not_small(
    tmp_path: Path, given: dict[str, Any], n: int, small: bool
) -> None:
    job = prepare(make_config(tmp_path, output=str(tmp_path / "out"), n=n, **given))
    assert in_driver.is_small(job) is small


def test_a_large_input_is_not_small(
    tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(make_config(tmp_path, output=str(tmp_path / "out"), **given))
    monkeypatch.setattr(in_driver, "SMALL_BYTES", 100)
    assert not in_driver.is_small(job)
