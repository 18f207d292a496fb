import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import StorageError
from cluster.storage import storage
from pipelines.errors import InvalidInput, OutputRefused
from pipelines.generate.config import GenerateConfig
from pipelines.generate.prepare import prepare
from pipelines.output.manifest import Manifest, differences
from tests.pipelines.generate.inprocess import make_config, outcome, run_job, write_prompts


@pytest.fixture
def config(tmp_path: Path) -> GenerateConfig:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", 9)
    return make_config(tmp_path, input=str(prompts), output=str(tmp_path / "out"), shard_rows=4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"temperature": 0.5}, "settings temperature was 1.0, is 0.5"),
        ({"seed": 6}, "settings seed was 5, is 6"),
        ({"stop": ("x",)}, r"settings stop was \[\], is \['x'\]"),
        ({"n": 2}, "settings n was 1, is 2"),
        ({"shard_rows": 5}, "settings shard_rows was 4, is 5"),
        ({"verify": "block"}, "settings verify was 'match', is 'block'"),
    ],
)
def test_another_job_is_refused(config: GenerateConfig, change: dict[str, Any], told: str) -> None:
    run_job(config)
    before = outcome(config.output)
    with pytest.raises(OutputRefused, match=f"{told}.*or --no-resume"):
        prepare(replace(config, **change))
    assert outcome(config.output) == before


def test_what_decides_no_token_may_change(config: GenerateConfig) -> None:
    run_job(config)
    other = replace(config, drafter="lookup", batch_size=3, target_actors=2, draft_tokens=5)
    assert not prepare(other).todo


def test_with_rejection_the_drafter_decides(config: GenerateConfig) -> None:
    run_job(replace(config, verify="rejection"))
    with pytest.raises(OutputRefused, match="drafter was 'none', is 'lookup'"):
        prepare(replace(config, verify="rejection", drafter="lookup"))


def test_another_input_is_refused(config: GenerateConfig, tmp_path: Path) -> None:
    run_job(config)
    write_prompts(tmp_path / "in" / "prompts.jsonl", 10)
    with pytest.raises(OutputRefused, match=r"input prompts.jsonl was '9 rows.*, is '10 rows"):
        prepare(config)


def test_another_checkpoint_is_refused(config: GenerateConfig, tmp_path: Path) -> None:
    run_job(config)
    (tmp_path / "target" / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(OutputRefused, match="target was"):
        prepare(config)


def test_models_and_input_may_move(config: GenerateConfig, tmp_path: Path) -> None:
    run_job(config)
    (tmp_path / "target").rename(tmp_path / "model")
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    moved = replace(
        config,
        target=str(tmp_path / "model"),
        input=str(tmp_path / "elsewhere" / "prompts.jsonl"),
    )
    assert not prepare(moved).todo


def test_starting_over_removes_the_rows_of_before(config: GenerateConfig, tmp_path: Path) -> None:
    run_job(config)
    again = replace(config, resume=False, shard_rows=9, seed=1)
    run_job(again)
    assert len(outcome(config.output)) == 9
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet")) == [
        "part-00000.parquet"
    ]


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_of_someone_else_is_never_touched(config: GenerateConfig, resume: bool) -> None:
    folder = Path(config.output)
    folder.mkdir()
    (folder / "thesis.txt").write_text("ten years of work")
    with pytest.raises(
        OutputRefused, match=r"already contains 'thesis\.txt', which paceline did not write"
    ):
        prepare(replace(config, resume=resume))
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_file_that_is_gone_or_cut_is_written_again(config: GenerateConfig) -> None:
    run_job(config)
    before = outcome(config.output)
    folder = Path(config.output)
    (folder / "part-00000.parquet").unlink()
    part = folder / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    assert [shard.index for shard in prepare(config).todo] == [0, 2]
    run_job(config)
    assert outcome(config.output) == before


def test_two_runs_of_one_job_commit_each_shard_once(config: GenerateConfig) -> None:
    run_job(config)
    folder = Path(config.output)
    names = sorted(path.name for path in (folder / "_manifest").iterdir())
    first = Manifest.open(
        str(folder), json.loads((folder / "_manifest/job.json").read_text()), resume=True
    )
    entry = first.entries[1]
    first.commit(replace(entry, tokens=entry.tokens + 1))
    assert first.entries[1] == entry
    assert sorted(path.name for path in (folder / "_manifest").iterdir()) == names


def test_an_output_that_cannot_be_written_is_told_at_once(config: GenerateConfig) -> None:
    with pytest.raises(StorageError, match=r"cannot .*proc/none"):
        prepare(replace(config, output="/proc/none"))


def test_an_output_in_the_input_is_refused(config: GenerateConfig, tmp_path: Path) -> None:
    folder = str(tmp_path / "in")
    for output in (folder, folder + "/out"):
        with pytest.raises(InvalidInput, match="lies in the input"):
            prepare(replace(config, input=folder, output=output))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt_field": "text"}, "prompt_field='text': the input has no such column; it has id,"),
        ({"id_field": "key"}, "id_field='key': the input has no such column"),
    ],
)
def test_a_column_that_is_not_there_is_named(
    config: GenerateConfig, change: dict[str, str], told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        prepare(replace(config, **change))


def test_an_empty_input_is_refused(config: GenerateConfig, tmp_path: Path) -> None:
    (tmp_path / "in" / "prompts.jsonl").write_text("\n\n")
    with pytest.raises(InvalidInput, match="has no rows"):
        prepare(config)


def test_error_rows_stand_among_the_others(config: GenerateConfig, tmp_path: Path) -> None:
    path = tmp_path / "in" / "prompts.jsonl"
    extra = ['{"id": 9, "prompt": ""}', "{broken", '{"id": 11, "prompt": "' + "x" * 300 + '"}']
    path.write_text(path.read_text() + "\n".join(extra) + "\n")
    manifest = run_job(config)
    rows = outcome(config.output)
    assert len(rows) == 12
    assert [row["finish_reason"] for row in rows] == ["length"] * 9 + ["error"] * 3
    assert [row["error"] for row in rows[9:]] == [
        "field 'prompt' is empty",
        "prompts.jsonl:11: not JSON: Expecting property name enclosed in double quotes at column 2",
        "prompt of 300 tokens is over 200",
    ]
    assert rows[11]["prompt"] == "x" * 300
    assert all(row["tokens"] is row["completion"] is None for row in rows[9:])
    assert sum(entry.rows_failed for entry in manifest.entries.values()) == 3


def test_an_input_of_nothing_but_garbage_is_all_error_rows(
    config: GenerateConfig, tmp_path: Path
) -> None:
    (tmp_path / "in" / "prompts.jsonl").write_bytes(b"\x00\x01\nnot json\n")
    run_job(config)
    rows = outcome(config.output)
    assert [row["id"] for row in rows] == ["prompts.jsonl:1", "prompts.jsonl:2"]
    assert all(row["error"].startswith("prompts.jsonl:") for row in rows)


def test_differences_in_words() -> None:
    before = {"a": 1, "b": {"c": 2, "d": 3}}
    assert differences(before, before) == []
    assert differences(before, {"a": 1, "b": {"c": 4, "d": 3}, "e": 5}) == [
        "b c was 2, is 4",
        "e was None, is 5",
    ]


def test_the_same_on_s3(config: GenerateConfig, s3_bucket: str, tmp_path: Path) -> None:
    run_job(config)
    data = (tmp_path / "in" / "prompts.jsonl").read_bytes()
    storage.publish(f"{s3_bucket}/in/prompts.jsonl", data)
    remote = replace(config, input=f"{s3_bucket}/in", output=f"{s3_bucket}/out")
    run_job(remote)
    assert outcome(remote.output) == outcome(config.output)
    storage.remove(f"{s3_bucket}/out/_manifest/00001.json")
    storage.remove(f"{s3_bucket}/out/part-00002.parquet")
    assert [shard.index for shard in prepare(remote).todo] == [1, 2]
    run_job(remote)
    assert outcome(remote.output) == outcome(config.output)
    with pytest.raises(OutputRefused, match="temperature"):
        prepare(replace(remote, temperature=0.0))
    run_job(replace(remote, resume=False, shard_rows=9))
    assert outcome(remote.output) == outcome(config.output)
    names = [info.name for info in storage.list_files(remote.output)]
    assert names == ["_manifest/00000.json", "_manifest/job.json", "part-00000.parquet"]
