"""A distillation on GPUs that the cluster does not have."""

from pathlib import Path

import pytest

from actors.errors import PoolFailed
from pipelines.distill.students.config import StudentOptions
from pipelines.distill.students.student import distill
from tests.pipelines.generate.image_jobs import raster

__all__ = ["raster"]  # fixture


@pytest.mark.ray
def test_it_is_refused_before_anything_is_made(
    raster: str, tmp_path: Path, ray_cluster: None
) -> None:
    options = StudentOptions(target=raster, output=str(tmp_path / "run"), device="cuda")
    told = "no room for 1 trainer actor with 1 CPU and 1 GPU each: .* has 4 CPU and 0 GPU"
    with pytest.raises(PoolFailed, match=told):
        distill(options)
    assert not (tmp_path / "run" / "records").exists()
