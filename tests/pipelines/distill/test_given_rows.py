"""Rows of `--data` that another target made, or other settings: without Ray."""

import shutil
from pathlib import Path

import pytest

from pipelines.distill.drafters import drafter
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.students import student
from pipelines.distill.students.config import StudentOptions
from pipelines.errors import InvalidInput
from pipelines.options import from_mapping
from tests.pipelines.generate.image_jobs import image_config, raster, run_images, write_rows

__all__ = ["raster"]  # a fixture


@pytest.fixture
def make(raster, tmp_path):
    """Rows of a job of the target with other settings."""
    source = write_rows(tmp_path / "labels.jsonl", [{"label": i % 5} for i in range(30)])

    def made(target=raster, **values):
        folder = tmp_path / "rows"
        shutil.rmtree(folder, ignore_errors=True)
        run_images(image_config(target, source, folder, **values))
        return str(folder)

    return made


def check_student(target, data, tmp_path, **values):
    given = {"target": target, "output": str(tmp_path / "run"), "data": data, **values}
    return student.check(from_mapping(StudentOptions, given))


def check_drafter(target, data, tmp_path):
    given = {"target": target, "output": str(tmp_path / "run"), "data": data}
    return drafter.check(from_mapping(DrafterOptions, given))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"temperature": 0.7}, r"temperature=0\.7; rows made with temperature=1\.0"),
        ({"top_k": 3}, "top_k=3; rows made with top_k=0"),
        ({"min_p": 0.1}, r"min_p=0\.1; rows made with min_p=0\.0"),
        ({"logit_bias": {1: 2.0}}, "logit_bias="),
        ({"guidance": 2.0}, r"guidance=2\.0; rows made with guidance=1\.0"),
    ],
)
def test_a_student_needs_the_targets_own_distributions(make, raster, tmp_path, values, told):
    data = make(**values)
    with pytest.raises(InvalidInput, match=told):
        check_student(raster, data, tmp_path)
    check_drafter(raster, data, tmp_path)


def test_the_guidance_is_that_which_is_learned(make, raster, tmp_path):
    data = make(guidance=2.0, noise="flow:K20:v1")
    check_student(raster, data, tmp_path, guidance=2.0)
    check_student(raster, make(), tmp_path)


def test_rows_of_another_target_are_refused(make, raster, tmp_path):
    other = shutil.copytree(raster, tmp_path / "other")
    data = make()
    check_student(str(other), data, tmp_path)  # where it lies does not matter
    (Path(other) / "report.json").write_text("{}")
    for check in (check_student, check_drafter):
        with pytest.raises(InvalidInput, match=r"made by a model .*, not by the target"):
            check(str(other), data, tmp_path)
