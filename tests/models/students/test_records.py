"""Rows of a generate job as records: rows without an image are left out, others' rows refused."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import UnsupportedCheckpoint
from models.students.records import read_records
from tests.models.students.test_network import CONFIG


def write(folder, labels, tokens, seeds=None):
    seeds = seeds or list(range(len(labels)))
    table = pa.table({"label": labels, "tokens": tokens, "seed": seeds, "image": labels})
    pq.write_table(table, folder / "part.parquet")
    return [str(folder / "part.parquet")]


def test_rows_in_order_without_errors(tmp_path):
    files = write(tmp_path, ["1", "2", "0"], [[5] * 12, None, [7] * 12], [8, 9, 2**62])
    found = read_records(files, CONFIG, label_field="label")
    assert found.classes.tolist() == [1, 0]
    assert found.tokens.tolist() == [[5] * 12, [7] * 12]
    assert found.seeds.tolist() == [8, 2**62]


def test_a_missing_column_is_told(tmp_path):
    files = write(tmp_path, [0], [[1] * 12])
    with pytest.raises(UnsupportedCheckpoint, match="no column 'class'; the rows have label, tok"):
        read_records(files, CONFIG, label_field="class")


def test_rows_of_a_student_are_refused(tmp_path):
    (file,) = write(tmp_path, [0], [[1] * 12])
    table = pq.read_table(file).append_column("exactness", [["approximate"]])
    pq.write_table(table, file)
    with pytest.raises(UnsupportedCheckpoint, match="a row's exactness is 'approximate'"):
        read_records([file], CONFIG, label_field="label")


@pytest.mark.parametrize(
    ("labels", "tokens", "told"),
    [
        ([0], [None], "there are no rows with tokens"),
        ([0], [[1] * 11], r"rows of \[11\] tokens; the target's images have 12"),
        ([0], [[24] * 12], "tokens 24 to 24; the target knows 0 to 23"),
        ([3], [[1] * 12], "classes 3 to 3; the target knows 0 to 2"),
    ],
)
def test_rows_of_another_target_are_refused(tmp_path, labels, tokens, told):
    files = write(tmp_path, labels, pa.array(tokens, pa.list_(pa.int32())))
    with pytest.raises(UnsupportedCheckpoint, match=told):
        read_records(files, CONFIG, label_field="label")
