"""Streamed images: previews of what is decided, then the image that is returned whole."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image

from models.engine_config import EngineConfig
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.test_playground import browser, browsing, opened

__all__ = ["browser"]
MODELS = "examples/models"


@pytest.fixture(scope="module", params=["digits-raster", "digits-scale"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    target = f"{MODELS}/{request.param}"
    config = EngineConfig(target=target, batch_size=4, device="cpu", threads=1)
    with local_server(config, kind="images") as made:
        yield made


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def pixels(picture: str) -> list[int]:
    return list(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L").tobytes())


def test_previews_come_before_the_image(client: openai.OpenAI) -> None:
    same: Any = {"prompt": "3", "extra_body": {"seed": 4}}
    whole = client.images.generate(**same).data[0].b64_json
    *previews, last = client.images.generate(stream=True, partial_images=3, **same)
    assert [event.type for event in previews] == ["image_generation.partial_image"] * len(previews)
    assert [event.partial_image_index for event in previews] == list(range(len(previews)))
    assert 1 <= len(previews) <= 3
    assert (last.type, last.b64_json) == ("image_generation.completed", whole)
    assert last.usage.output_tokens > 0
    far = [
        sum(abs(a - b) for a, b in zip(pixels(each.b64_json), pixels(whole), strict=True))
        for each in previews
    ]
    assert far[-1] < far[0] or len(previews) == 1  # they come nearer
    (alone,) = client.images.generate(stream=True, **same)
    assert alone.b64_json == whole


@pytest.mark.parametrize(
    ("body", "param"),
    [({"stream": True, "n": 2}, "n"), ({"partial_images": 2}, "partial_images")],
)
def test_what_is_not_streamed_is_refused(client: openai.OpenAI, body: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt="3", extra_body=body)
    assert refused.value.param == param


@browsing
def test_the_playground_shows_images(browser: Any, url: str) -> None:
    page = opened(browser, url)
    page.get_by_label("Images").fill("2")
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("2 images in").wait_for()
    found = [image.get_attribute("alt") for image in page.locator("img").all()]
    assert found == ["Class 3, seed 1", "Class 3, seed 2"]
    assert page.faults == []
    page.close()
