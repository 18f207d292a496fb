"""Inputs of every kind, whole and broken: which rows come out, with which ids and reasons."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.storage import storage
from pipelines.errors import InvalidInput
from pipelines.inputs import lines, read
from pipelines.inputs.columns import arrow_type, fit, merge, shape_of
from pipelines.inputs.files import find_inputs
from pipelines.inputs.rows import ID, PROBLEM, PROMPT, prompt_rows, row_id
from pipelines.inputs.seeds import row_seed
from pipelines.inputs.shards import ShardPlan, make_plan
from pipelines.inputs.survey import survey
from pipelines.modality.texts import Texts

READ = Texts(checkpoint="").prompt


def plan_of(path: Path | str, *, shard_rows: int = 1000) -> ShardPlan:
    surveys = [survey(file, prompt_field="prompt") for file in find_inputs(str(path))]
    return make_plan(surveys, shard_rows=shard_rows)


def rows_of(path: Path | str, *, shard_rows: int = 1000) -> list[dict[str, Any]]:
    plan, out = plan_of(path, shard_rows=shard_rows), list[dict[str, Any]]()
    for shard in plan.shards:
        rows = read.read_shard(shard, plan.schema, prompt_field="prompt", id_field="id")
        out += prompt_rows(rows, shard=shard.index, prompt_field="prompt", read=READ).to_pylist()
        assert len(rows.places) == shard.num_rows
    return out


def write_parquet(path: Path, count: int, **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    table = pa.table({"prompt": [f"p{i}" for i in range(count)], "score": np.arange(count) * 0.5})
    pq.write_table(table, path, **options)
    return path


def test_lines_are_rows_and_blank_lines_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\n  \ntwo \r\nthree")
    rows = rows_of(path)
    assert [(row[ID], row[PROMPT]) for row in rows] == [
        ("a.txt:1", "one"),
        ("a.txt:4", "two "),
        ("a.txt:5", "three"),
    ]
    assert [row["prompt"] for row in rows] == ["one", "two ", "three"]


def test_malformed_rows_say_what_is_wrong_and_where(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    content = [
        b'{"prompt": "fine", "id": 7}',
        b'{"prompt": "cut off',
        b'["a", "list"]',
        b'{"prompt": 3}',
        b'{"prompt": ""}',
        b'{"other": "x"}',
        b'{"prompt": null}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "\\ud800"}',
        b"[" * 100_000,
    ]
    path.write_bytes(b"\n".join(content))
    rows = rows_of(path)
    problems = [row[PROBLEM] for row in rows]
    assert rows[0][PROMPT] == "fine"
    assert rows[0][ID] == "7"
    expected = [
        None,
        "a.jsonl:2: not JSON: Unterminated string starting at at column 12",
        "a.jsonl:3: not a JSON object but list; the file may be one JSON array",
        "field 'prompt' is int 3, not text",
        "field 'prompt' is empty",
        "field 'prompt' is missing",
        "field 'prompt' is missing",
        "a.jsonl:8: not UTF-8 text: invalid start byte at byte 12",
        "a.jsonl:9: not Unicode: a surrogate without its other half",
        "a.jsonl:10: not JSON that can be read: nested too deeply",
    ]
    assert problems == expected
    assert [row[ID] for row in rows[1:]] == [f"a.jsonl:{n}" for n in range(2, 11)]


@pytest.mark.parametrize("shard_rows", [1, 3, 256, 700, 5000])
def test_shards_hold_every_row_once_whatever_their_size(tmp_path: Path, shard_rows: int) -> None:
    folder = tmp_path / "in"
    write_parquet(folder / "b.parquet", 900, row_group_size=250)
    for name, count in [("a.jsonl", 700), ("c.jsonl", 1), ("d.jsonl", 0), ("e.jsonl", 530)]:
        text = "".join(f'{{"prompt": "{name} {i}"}}\n' + "\n" * (i % 3) for i in range(count))
        (folder / name).write_text(text)
    plan = plan_of(folder, shard_rows=shard_rows)
    assert [shard.index for shard in plan.shards] == list(range(len(plan.shards)))
    assert {shard.num_rows for shard in plan.shards[:-1]} <= {shard_rows}
    rows = rows_of(folder, shard_rows=shard_rows)
    expected = [f"a.jsonl {i}" for i in range(700)] + [f"p{i}" for i in range(900)]
    expected += ["c.jsonl 0"] + [f"e.jsonl {i}" for i in range(530)]
    assert [row[PROMPT] for row in rows] == expected
    assert len({row[ID] for row in rows}) == len(rows)
    assert rows[700][ID] == "b.parquet:1"
    assert rows[701]["score"] == 0.5


def test_ids_do_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    for name in ("here", "there"):
        write_parquet(tmp_path / name / "x.parquet", 3)
    ids = [[row[ID] for row in rows_of(tmp_path / name)] for name in ("here", "there")]
    assert ids[0] == ids[1] == ["x.parquet:1", "x.parquet:2", "x.parquet:3"]


@pytest.mark.parametrize("size", [0, 4, 11, 500, 6000])
def test_a_parquet_file_that_cannot_be_read_is_refused(tmp_path: Path, size: int) -> None:
    write_parquet(tmp_path / "in" / "a.parquet", 3)
    path = write_parquet(tmp_path / "in" / "b.parquet", 1000)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InvalidInput, match=r"in/b\.parquet' is no readable Parquet file: \w+"):
        plan_of(tmp_path / "in")


def test_rows_without_an_id_get_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "prompt": "x"}\n{broken\n{"prompt": "y"}\n')
    plan = plan_of(path)
    assert plan.schema.field("id").type == pa.string()
    assert [row["id"] for row in rows_of(path)] == ["1", None, None]
    path.write_text('{"id": 1, "prompt": "x"}\n')
    assert plan_of(path).schema.field("id").type == pa.int64()


def test_a_corrupt_row_group_costs_its_own_rows(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", 30, row_group_size=10, compression="zstd", write_page_checksum=True
    )
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    rows = rows_of(path, shard_rows=7)
    assert [row[PROMPT] for row in rows[:10]] == [f"p{i}" for i in range(10)]
    assert [row[PROMPT] for row in rows[20:]] == [f"p{i}" for i in range(20, 30)]
    for i, row in enumerate(rows[10:20], 11):
        assert row[PROBLEM].startswith(f"a.parquet:{i}: not readable Parquet rows: ")


def test_a_file_that_changes_meanwhile_stops_the_job(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a"}\n' * 3)
    plan = plan_of(path)
    path.write_text('{"prompt": "a"}\n')
    with pytest.raises(InvalidInput, match="has changed while the job runs"):
        read.read_shard(plan.shards[0], plan.schema, prompt_field="prompt", id_field="id")


def test_columns_keep_their_values(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "n": 1, "tags": ["x"], "who": {"name": "Ann"}, "mixed": 1, "no": None},
        {"prompt": "b", "n": 2.5, "tags": [], "who": {"age": 3}, "mixed": "two", "big": 2**70},
        {"prompt": "c", "tags": None, "mixed": [3], "yes": True, "empty": {}},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pa.Table.from_pylist(rows_of(path, shard_rows=2))
    assert table.column("n").to_pylist() == [1.0, 2.5, None]
    assert table.column("tags").to_pylist() == [["x"], [], None]
    assert table.column("who").to_pylist() == [
        {"name": "Ann", "age": None},
        {"name": None, "age": 3},
        None,
    ]
    assert table.column("mixed").to_pylist() == ["1", "two", "[3]"]
    assert table.column("big").to_pylist() == [None, str(2**70), None]
    assert table.column("yes").to_pylist() == [None, None, True]
    assert table.column("empty").to_pylist() == [None, None, "{}"]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (None, 1, pa.int64()),
        (1, 2.5, pa.float64()),
        (True, 1, pa.string()),
        ([1], [None, 2.5], pa.list_(pa.float64())),
        ([], ["x"], pa.list_(pa.string())),
        ({"a": 1}, {"b": [True]}, pa.struct([("a", pa.int64()), ("b", pa.list_(pa.bool_()))])),
        ({"a": 1}, "text", pa.string()),
        ({f"k{i}": 1 for i in range(200)}, {f"j{i}": 1 for i in range(200)}, pa.string()),
    ],
)
def test_a_type_holds_both(a: object, b: object, expected: pa.DataType) -> None:
    kind = arrow_type(merge(shape_of(a), shape_of(b)))
    assert kind == expected
    assert arrow_type(merge(shape_of(b), shape_of(a))).equals(expected) or isinstance(a, dict)
    pa.array([fit(a, kind), fit(b, kind)], kind)


def test_files_whose_columns_disagree_are_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", 3)
    pq.write_table(pa.table({"prompt": ["x"], "score": ["high"]}), tmp_path / "b.parquet")
    with pytest.raises(InvalidInput, match=r"columns of 'b.parquet' do not fit .*score"):
        plan_of(tmp_path)


def test_dictionary_columns_are_plain_text(tmp_path: Path) -> None:
    prompts = pa.array(["a", "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"prompt": prompts}), tmp_path / "a.parquet")
    assert [row[PROMPT] for row in rows_of(tmp_path)] == ["a", "b", "a"]


def test_hidden_files_are_no_input(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "b.txt").write_text("y\n")
    assert [file.name for file in find_inputs(str(tmp_path))] == ["a.txt"]


def test_unknown_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n")
    with pytest.raises(InvalidInput, match=r"unknown file type 'a.csv' .* accepted Parquet"):
        find_inputs(str(tmp_path))
    with pytest.raises(InvalidInput, match="is no file, and no folder with files"):
        find_inputs(str(tmp_path / "nowhere"))


def test_the_digest_tells_contents_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    digests = set()
    for text in ('{"prompt": "a"}\n', '{"prompt": "b"}\n', '{"prompt": "a"}'):
        path.write_text(text)
        digests.add(survey(find_inputs(str(path))[0], prompt_field="prompt").digest)
    parquet = tmp_path / "b.parquet"
    for count in (3, 4):
        write_parquet(parquet, count)
        digests.add(survey(find_inputs(str(parquet))[0], prompt_field="prompt").digest)
    assert len(digests) == 5


def test_ids_as_text() -> None:
    values = [None, "a", 3, 2.5, True, [1, 2], {"b": 1, "a": 2}]
    expected = ["f:1", "a", "3", "2.5", "true", "[1, 2]", '{"a": 2, "b": 1}']
    assert [row_id(value, "f:1") for value in values] == expected


def test_seeds_stay_what_they_are() -> None:
    """Output depends on these numbers: a change of the hash is a change of every job."""
    assert row_seed(0, "a", 0) == 2454028792850253460
    assert row_seed(1, "prompts.jsonl:1", 2) == 7989827609993324643
    seeds = {row_seed(s, str(i), n) for s in range(5) for i in range(200) for n in range(4)}
    assert len(seeds) == 4000
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = '{"prompt": "é"}\n{"prompt": "b"}\n' if name.endswith("l") else "é\nb\n"
    path.write_text(content, encoding="utf-8-sig")
    plan = plan_of(path)
    rows = read.read_shard(plan.shards[0], plan.schema, prompt_field="prompt", id_field="id")
    assert rows.prompts == ["é", "b"]
    assert rows.problems == [None, None]


def test_marks_lead_into_the_middle_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"row {i}\n\n" for i in range(3 * lines.STRIDE)))
    plan = plan_of(path, shard_rows=100)
    (piece,) = plan.shards[6].pieces
    assert (piece.first, piece.skip, piece.line) == (600, 600 - 2 * lines.STRIDE, 1025)
    with storage.open_input(str(path)) as file:
        file.seek(piece.offset)
        assert file.readline() == b"row 512\n"
