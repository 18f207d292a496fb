"""Generate jobs with a student as the drafter: the rows of plain decoding, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from models.errors import InvalidOption, UnsupportedCheckpoint
from models.registry import FLOW, GUMBEL
from pipelines.generate.fingerprint import fingerprint
from pipelines.generate.prepare import prepare
from pipelines.modality.choose import modality_of
from tests.pipelines.generate.image_jobs import (
    image_config,
    labels,
    raster,
    run_images,
    save_raster,
    save_scale,
)
from tests.pipelines.generate.inprocess import outcome
from tests.pipelines.generate.test_student import student

__all__ = ["labels", "raster", "student"]  # fixtures


@pytest.mark.parametrize("noise", [GUMBEL, FLOW])
def test_rows_are_those_of_plain_decoding(
    raster: str, student: str, labels: str, tmp_path: Path, noise: str
) -> None:
    plain = image_config(raster, labels, tmp_path / "plain", noise=noise)
    drafted = image_config(raster, labels, tmp_path / "drafted", noise=noise, drafter=student)
    for config in (plain, drafted):
        run_images(config)
    rows = outcome(plain.output)
    assert outcome(drafted.output) == rows
    assert {row["exactness"] for row in rows} == {"identical"}
    jobs = [fingerprint(config, prepare(config).plan) for config in (plain, drafted)]
    assert jobs[0] == jobs[1]  # one may go on with the other's rows
    assert jobs[0]["settings"]["noise"] == noise


def test_the_window_is_an_option(raster: str, student: str, labels: str, tmp_path: Path) -> None:
    config = image_config(raster, labels, tmp_path / "out", drafter=student, window=7)
    settled = modality_of(config).settled(config)
    assert settled.engine().draft_tokens == 7
    settled = modality_of(config).settled(image_config(raster, labels, "out", drafter=student))
    assert settled.engine().draft_tokens == 16


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"draft_actors": 1}, r"draft_actors=1 is not accepted: 0 with drafter='.*': its guesses"),
        ({"decoder": "jacobi"}, r"decoder='jacobi' is not accepted: sequential or none with draft"),
        ({"start": "above"}, r"start='above' is not accepted: only with decoder"),
        ({"verify": "rejection"}, r"verify='rejection' is not accepted"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    raster: str, student: str, labels: str, tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidOption, match=told):
        prepare(image_config(raster, labels, tmp_path / "out", drafter=student, **values))


def test_a_student_of_another_target_is_refused_with_both_names(
    student: str, labels: str, tmp_path: Path
) -> None:
    other = save_raster(tmp_path / "other")
    (Path(other) / "report.json").write_text("{}")
    told = r"made for the target '.*raster\d+'.*not for '"
    with pytest.raises(UnsupportedCheckpoint, match=told):
        prepare(image_config(other, labels, tmp_path / "out", drafter=student))


def test_a_next_scale_target_has_nothing_to_draft(
    student: str, labels: str, tmp_path: Path
) -> None:
    target = save_scale(tmp_path / "scale")
    with pytest.raises(InvalidOption, match=r"drafter=.* is not accepted: none: this target"):
        prepare(image_config(target, labels, tmp_path / "out", drafter=student))
