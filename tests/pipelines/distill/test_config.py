"""Options of a distillation: what is refused, and where they come from."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import InvalidOption, UnsupportedCheckpoint
from pipelines.cli import main, parse
from pipelines.distill.command import student_config
from pipelines.distill.students.config import StudentOptions
from pipelines.distill.students.student import check
from pipelines.options import from_mapping
from tests.pipelines.generate.image_jobs import raster

__all__ = ["raster"]  # a fixture
GIVEN = {"target": "t", "output": "o"}


@pytest.mark.parametrize(
    ("steps", "passes"), [("1,2", (1, 2)), (1, (1,)), ("4,1,4", (1, 4)), ("8", (8,))]
)
def test_numbers_of_passes(steps, passes):
    assert from_mapping(StudentOptions, {**GIVEN, "steps": steps}).passes == passes


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"steps": "1,x"}, "steps='1,x' is not accepted: positive numbers with commas"),
        ({"steps": 0}, "steps=0 is not accepted"),
        ({"method": "three-head"}, "one of flow-map, two-head, score"),
        ({"layers": 0}, "layers=0 is not accepted: 1 or more, at most the target's"),
        ({"records": 0}, "records=0 is not accepted: 1 or more"),
        ({"records": 9, "data": "d"}, "records=9 is not accepted: 1 or more, without data"),
        ({"eval_rows": 5}, "eval_rows=5 is not accepted: 20 or more"),
        ({"workers": 100}, r"workers=100 is not accepted: at most train_batch \(64\)"),
        ({"rate": 0.0}, r"rate=0\.0 is not accepted"),
        ({"recods": 3}, "there is no such option"),
        ({"target": ""}, "target='' is not accepted"),
    ],
)
def test_what_is_refused(values, told):
    with pytest.raises(InvalidOption, match=told):
        from_mapping(StudentOptions, {**GIVEN, **values})


def test_rows_of_another_kind_are_refused_before_anything_is_made(raster, tmp_path):
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": ["a"], "prompt": ["x"], "tokens": [[1]], "seed": [1]}), rows)
    given = {"target": raster, "output": str(tmp_path / "run"), "data": str(rows)}
    with pytest.raises(UnsupportedCheckpoint, match="no column 'label'; the rows have id, prompt"):
        check(from_mapping(StudentOptions, given))
    assert not (tmp_path / "run").exists()


def test_the_command_line_overrides_the_file(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("target: t\noutput: o\nrecords: 50\nsteps: 1\n")
    words = ["distill", "student", "--config", str(file), "--steps", "1,4", "--no-resume"]
    config = student_config(parse(words))
    assert (config.records, config.passes, config.resume) == (50, (1, 4), False)


def test_only_students_and_drafters_are_made(capsys):
    with pytest.raises(SystemExit):
        main(["distill", "teacher", "--target", "t", "--output", "o"])
    assert "invalid choice: 'teacher'" in capsys.readouterr().err
