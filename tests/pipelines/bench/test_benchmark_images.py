"""The image benchmark's sections and plot, once on tiny random models."""

import io
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.image_plot import draw
from benchmarks.image_sections import METRICS, ImageWork, decoders, scales
from benchmarks.image_work import grid
from tests.pipelines.generate.image_jobs import NUM_TOKENS, raster, save_scale

__all__ = ["raster"]  # a fixture
CLASSIFIER = Path(__file__).parents[3] / "examples" / "models" / "digits-classifier"


@pytest.fixture
def plan(raster: str, tmp_path: Path) -> ImageWork:
    return ImageWork(
        raster=raster,
        scale=save_scale(tmp_path / "scale"),
        classifier=str(CLASSIFIER),
        windows=(4,),
        counts={1: 1, 8: 20},
        turns=1,
        references=40,
        guidance=1.5,
        threads=1,
    )


def test_every_decoder_and_its_quality(plan: ImageWork) -> None:
    section = decoders(plan, batch_size=8, guidance=1.5)
    (table,) = section.tables
    names = [way.name for way in grid(plan.raster, plan.windows)]
    assert [row[0] for row in table.rows] == names
    cells = [dict(zip(table.heads, row, strict=True)) for row in table.rows]
    assert cells[0]["passes/image"] == f"{NUM_TOKENS:.1f}"
    assert [cell["exactness"] for cell in cells] == ["identical"] * 2 + ["distribution"] * 3
    assert [cell["same grids"] for cell in cells] == ["yes"] * 2 + ["–"] * 3
    for name in METRICS:
        assert cells[0][name] == cells[1][name]  # jacobi's images are the sequential ones
    assert section.goals[0].measured > 1


def test_the_next_scale_target_and_the_plot(plan: ImageWork) -> None:
    section = scales(plan)
    rows = [row for table in section.tables for row in table.rows if row[0] == "next-scale"]
    assert [row[1] for row in rows] == ["4.0", "4.0"]
    lines = decoders(plan, batch_size=1, guidance=1.0).as_dict()["measurements"]
    picture = draw({"batch-1": lines, "scale": section.as_dict()["measurements"]})
    assert Image.open(io.BytesIO(picture)).format == "PNG"
