"""The target's images that a student's evaluation compares with, made in this process."""

from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from pipelines.distill import records
from pipelines.distill.records import files_of
from pipelines.distill.students.config import StudentOptions
from pipelines.distill.students.student import check
from pipelines.options import from_mapping
from tests.pipelines.generate.image_jobs import raster, run_images

__all__ = ["raster"]  # a fixture


@pytest.fixture
def in_process(monkeypatch):
    """Jobs run in this process."""

    def generate(config):
        run_images(config)
        return SimpleNamespace(rows_failed=0, seconds=1.0, noise="gumbel", exactness="identical")

    monkeypatch.setattr(records, "generate", generate)


def test_another_number_of_them_replaces_them(raster, tmp_path, in_process):
    for rows in (20, 20, 30):
        given = {"target": raster, "output": str(tmp_path / "run"), "eval_rows": rows}
        run = check(from_mapping(StudentOptions, given))
        run.hold_out()
        (file,) = files_of(run.path / "held-out")
        assert pq.read_metadata(file).num_rows == 2 * rows
