"""A draft model of images by one command, with streamed states; then `generate` drafts with it."""

import json
from pathlib import Path

import pytest

from models.drafting.folder_kind import MODEL, folder_kind
from pipelines.cli import main
from tests.pipelines.distill.recomputed import assert_recomputed
from tests.pipelines.generate.image_jobs import image_config, labels, raster, run_images
from tests.pipelines.generate.inprocess import outcome

__all__ = ["labels", "raster"]  # fixtures
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


def test_from_an_image_target_to_the_same_images_with_its_drafter(
    raster: str, labels: str, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    sizes = {"records": 20, "train-steps": 4, "train-batch": 4, "exam-every": 2, "threads": 1}
    sizes |= {"depth": 2, "exam-prompts": 3, "window": 2}
    given = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    command = ["distill", "drafter", "--target", raster, "--output", str(out), *given]
    command += ["--guidance", "2.0", "--states", "stream", "--no-progress"]
    assert main(command) == 0
    assert "states     2 steps ahead, at most" in capsys.readouterr().out
    assert_recomputed(out, command)
    found = json.loads((out / "evaluation" / "evaluation.json").read_text())
    told = {line["drafter"] for line in found["lines"]}
    assert told == {"plain", "jacobi", "mc-sjd", "this drafter"}
    assert folder_kind(out / "export") == MODEL
    assert json.loads((out / "export" / "drafter.json").read_text())["guidance"] == 2.0

    rows = str(tmp_path / "rows")
    use = ["generate", "--target", raster, "--drafter", str(out / "export"), "--input", labels]
    use += ["--prompt-field", "label", "--guidance", "2.0", "--seed", "5", "--output", rows]
    assert main([*use, "--no-progress"]) == 0
    plain = image_config(raster, labels, tmp_path / "plain", guidance=2.0)
    run_images(plain)
    assert outcome(rows) == outcome(plain.output)
    assert {row["exactness"] for row in outcome(rows)} == {"identical"}
