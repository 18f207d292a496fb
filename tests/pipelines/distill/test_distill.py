"""A whole distillation of a tiny target, by the command; then its student makes images."""

import json
from pathlib import Path

import pytest

from models.students.checkpoint import load_student
from pipelines.cli import main
from tests.pipelines.generate.image_jobs import labels, raster
from tests.pipelines.generate.inprocess import outcome

__all__ = ["labels", "raster"]  # fixtures
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def test_from_a_target_to_images_of_a_student(
    raster: str, labels: str, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    sizes = {"records": 60, "train-steps": 12, "train-batch": 8, "eval-rows": 20, "threads": 1}
    given = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    command = ["distill", "student", "--target", raster, "--output", str(out), *given]
    assert main([*command, "--no-progress"]) == 0
    told = capsys.readouterr().out
    assert "estimate   records" in told
    assert "| 2 steps" in told
    found = json.loads((out / "evaluation" / "evaluation.json").read_text())
    assert set(found["values"]) == {"teacher", "independent", "1 step", "2 steps"}
    assert found["passes"] == {"teacher": 16, "independent": 0, "1 step": 1, "2 steps": 2}
    about = json.loads((out / "run.json").read_text())
    assert about["decides"]["target"] == load_student(out / "export").config.target.digest
    page = (out / "report.html").read_text()
    assert "A student of" in page
    assert page.count("data:image/png;base64") == 1
    for name in ("curves.png", "samples.png"):
        assert (out / "evaluation" / name).stat().st_size > 1000

    assert main([*command, "--no-progress"]) == 0
    assert capsys.readouterr().out.count("done before") == 5
    assert main([*command, "--no-progress", "--records", "61"]) == 2
    assert "holds another run: records was 60, is 61" in capsys.readouterr().err

    rows = str(tmp_path / "rows")
    words = ["generate", "--student", str(out / "export"), "--input", labels, "--output", rows]
    assert main([*words, "--steps", "2", "--prompt-field", "label", "--no-progress"]) == 0
    assert {row["exactness"] for row in outcome(rows)} == {"approximate"}
