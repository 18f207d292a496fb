"""Image jobs on Ray, with real actors: decoders, draft actors, files, the command."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import paceline
from pipelines.cli import main
from pipelines.generate.job import generate
from pipelines.modality.images import SHEET
from pipelines.output.picture_files import FOLDER
from tests.pipelines.generate.image_jobs import NUM_TOKENS, image_config, labels, raster, run_images
from tests.pipelines.generate.inprocess import outcome

__all__ = ["labels", "raster"]  # fixtures
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.mark.parametrize(
    "values",
    [
        {"target_actors": 2, "n": 2},
        {"decoder": "jacobi", "window": 5, "guidance": 1.7},
        {"decoder": "jacobi", "window": 5, "draft_actors": 1, "images_as": "files"},
    ],
)
def test_rows_are_those_of_sequential_decoding(
    raster: str, labels: str, tmp_path: Path, values: dict[str, Any]
) -> None:
    config = image_config(raster, labels, tmp_path / "out", **values)
    summary = generate(config)
    kept = {name: values[name] for name in ("n", "guidance", "images_as") if name in values}
    plain = image_config(raster, labels, tmp_path / "plain", **kept)
    run_images(plain)
    assert outcome(config.output) == outcome(plain.output)
    assert (summary.images, summary.rows_failed) == (11 * config.n, 0)
    assert summary.exactness == "identical"
    assert summary.passes_per_image is not None
    if config.decoder == "jacobi" and not config.draft_actors:
        assert summary.passes_per_image < NUM_TOKENS
        assert summary.accepted_length > 1
    if config.decoder is None:
        assert summary.passes_per_image == NUM_TOKENS


def test_the_command_and_the_python_names(
    raster: str, labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"target": raster, "input": labels, "prompt_field": "label", "seed": 3}
    values |= {"decoder": "mc-sjd", "window": 6, "coupling": "gumbel", "images_as": "files"}
    given = [word for name, v in values.items() for word in (f"--{name.replace('_', '-')}", str(v))]
    out = tmp_path / "out"
    assert main(["generate", *given, "--output", str(out), "--threads", "1", "--no-progress"]) == 0
    assert "11: " in capsys.readouterr().out
    rows = outcome(str(out))
    assert {row["exactness"] for row in rows} == {"distribution"}
    assert len(list((out / FOLDER).glob("*.png"))) == 11
    assert Image.open(io.BytesIO((out / SHEET).read_bytes())).size == (4 + 10 * 52, 4 + 2 * 52)
    again = paceline.generate(**values, output=str(tmp_path / "b"), threads=1, progress=False)
    assert outcome(str(tmp_path / "b")) == rows
    assert again.images == 11
    assert main(["generate", *given, "--output", str(out), "--stop", "x"]) == 2
    assert "stop=('x',) is not accepted: only () with an image target" in capsys.readouterr().err
