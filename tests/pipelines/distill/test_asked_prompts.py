"""Which prompts are completed with `--records N`: without Ray."""

import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.distill.drafters import texts
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.prompts import asked_of
from pipelines.distill.drafters.texts import check_source, make_rows, renew, rows_of, write_split
from pipelines.errors import InvalidInput
from pipelines.inputs.seeds import row_seed
from pipelines.options import from_mapping
from tests.pipelines.generate.inprocess import run_job

TOPICS, EACH = "abcd", 25


@pytest.fixture
def source(tmp_path):
    """100 prompts, sorted by topic."""
    rows = [{"prompt": f"{topic} {i}", "more": i} for topic in TOPICS for i in range(EACH)]
    file = tmp_path / "in" / "prompts.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


@pytest.fixture
def in_process(monkeypatch):
    """Rows are made in this process."""

    def generate(config):
        run_job(config)
        return SimpleNamespace(rows=1, rows_failed=0, seconds=1.0)

    monkeypatch.setattr(texts, "generate", generate)


def config_of(target, source, tmp_path, **values):
    given = {"target": target, "prompts": source, "output": str(tmp_path / "run"), **values}
    return from_mapping(DrafterOptions, given)


def read(files):
    return [row for file in files for row in pq.read_table(file).to_pylist()]


@pytest.mark.parametrize(
    ("records", "prompts", "samples"), [(1, 1, 1), (40, 40, 1), (100, 100, 1), (130, 65, 2)]
)
def test_about_so_many_outputs_are_made(
    source, records, prompts, samples, tmp_path, checkpoints, in_process
):
    config = config_of(checkpoints["target"], source, tmp_path, records=records)
    make_rows(config, tmp_path / "run" / "records")
    rows = read(rows_of(config, tmp_path / "run" / "records"))
    assert len(rows) == prompts * samples
    assert len({row["prompt"] for row in rows}) == prompts
    if prompts >= 40:
        assert {row["prompt"][0] for row in rows} == set(TOPICS)
    for row in rows:  # as of the whole input
        assert row["id"].startswith("prompts.jsonl:")
        assert row["seed"] == row_seed(0, row["id"], row.get("sample", 0))


def test_the_seed_decides_which(source, tmp_path):
    files = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        asked_of(source, file, prompt_field=None, records=10, seed=seed)
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_later_generations_have_the_same_prompts(source, tmp_path, checkpoints, in_process):
    sizes = {"records": 40, "renew": 1, "exam_prompts": 3}
    config = config_of(checkpoints["target"], source, tmp_path, **sizes)
    make_rows(config, tmp_path / "records")
    first = write_split(config, rows_of(config, tmp_path / "records"), tmp_path / "texts")
    first["files"] = []
    told = renew(config, 2, tmp_path, first)
    before, after = read(first["rows"]), read(told["rows"])
    assert [row["prompt"] for row in before] == [row["prompt"] for row in after]
    assert [row["seed"] for row in before] != [row["seed"] for row in after]


def test_chats_and_formats_stay_what_they_are(tmp_path):
    chat = [{"role": "user", "content": "é", "name": None}]
    form = {"type": "json_object"}
    table = pa.table({"messages": [chat] * 3, "response_format": [form] * 3, "id": [4, 5, 6]})
    pq.write_table(table, tmp_path / "chats.parquet")
    file = tmp_path / "some.jsonl"
    asked = asked_of(str(tmp_path / "chats.parquet"), file, prompt_field=None, records=2, seed=0)
    assert (asked.input, asked.samples) == (str(file), 1)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 2
    assert all(row["messages"] == chat and row["response_format"] == form for row in rows)
    assert {row["id"] for row in rows} < {"4", "5", "6"}


def test_the_prompts_that_are_taken_must_be_short_enough(tmp_path, checkpoints):
    """There are enough in the whole input, and none among those."""
    file = tmp_path / "prompts.jsonl"
    rows = [f"{i:030}" for i in range(995)] + [f"a{i}" for i in range(5)]
    file.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))
    config = config_of(checkpoints["target"], str(file), tmp_path, length=40, records=20)
    with pytest.raises(InvalidInput, match="0 different prompts of at most 20 tokens"):
        check_source(config)
    check_source(config_of(checkpoints["target"], str(file), tmp_path, length=40))
