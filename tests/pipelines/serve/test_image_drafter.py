"""An image target served with a draft model: the images of the target alone."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from models.engine_config import EngineConfig
from models.errors import InvalidOption, UnsupportedCheckpoint
from pipelines.serve.check import check
from pipelines.serve.config import ServeConfig
from pipelines.serve.door.door import Door
from pipelines.serve.door.limits import Limits
from tests.pipelines.generate.image_jobs import raster, save_scale
from tests.pipelines.generate.test_image_draft_model import save_draft
from tests.pipelines.serve.local import LoopPool, facts_of, local_models
from tests.ports import free_port

__all__ = ["raster"]  # a fixture


@pytest.fixture
def client(raster: str, tmp_path: Path) -> Iterator[openai.OpenAI]:
    """Of a server with the target alone and with a draft model."""
    engine = partial(EngineConfig, target=raster, batch_size=4, device="cpu", threads=1)
    draft = save_draft(tmp_path / "draft")
    engines = {"plain": engine(), "drafted": engine(drafter=draft, draft_tokens=3)}
    models = [
        (partial(LoopPool.start, config), facts_of(config, name=name, kind="images"))
        for name, config in engines.items()
    ]
    with (
        local_models(Door(max_body_bytes=2**20, limits=Limits(per_client=8)), models) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def test_images_are_those_of_the_target_alone(client: openai.OpenAI) -> None:
    made: dict[str, Any] = {}
    for name in ("plain", "drafted"):
        several = client.images.generate(model=name, prompt="3", n=3, extra_body={"seed": 7})
        streamed = client.images.generate(
            model=name, prompt="2", stream=True, partial_images=1, extra_body={"seed": 8}
        )
        made[name] = [image.b64_json for image in several.data or ()]
        made[name].append(list(streamed)[-1].b64_json)
    assert made["plain"] == made["drafted"]
    assert len(set(made["plain"])) == 4


def checked(target: str, drafter: str) -> None:
    check([ServeConfig(target=target, drafter=drafter, port=free_port())])


def test_what_cannot_draft_images_is_refused(raster: str, tmp_path: Path) -> None:
    checked(raster, save_draft(tmp_path / "draft"))
    for drafter in ("lookup", "jacobi"):
        with pytest.raises(InvalidOption, match=f"drafter='{drafter}' is not accepted: none, or a"):
            checked(raster, drafter)
    with pytest.raises(UnsupportedCheckpoint, match="the draft has 7 classes"):
        checked(raster, save_draft(tmp_path / "other", num_classes=7))
    scale = save_scale(tmp_path / "scale")
    with pytest.raises(InvalidOption, match="writes whole maps at once"):
        checked(scale, str(tmp_path / "draft"))
