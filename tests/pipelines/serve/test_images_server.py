"""A server of an image target: the PNGs are those that `generate` wrote for the same seed."""

import base64
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pyarrow.parquet as pq
import pytest

from pipelines.serve.config import ServeConfig
from tests.pipelines.generate.image_jobs import save_raster
from tests.pipelines.serve.test_soak import Watch
from tests.ports import free_port

CLIENTS, KILLS = 8, 10

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def image_rows(target: str, folder: Any) -> list[dict[str, Any]]:
    from pipelines.generate.config import GenerateConfig
    from pipelines.generate.job import generate

    text = "".join(json.dumps({"prompt": label}) + "\n" for label in range(5))
    (folder / "in.jsonl").write_text(text)
    places = {"input": str(folder / "in.jsonl"), "output": str(folder / "out")}
    generate(GenerateConfig(target=target, **places, device="cpu", threads=1, progress=False))
    return list(pq.read_table(folder / "out").to_pylist())


def test_the_seed_of_a_row_gives_its_image(ray_cluster, tmp_path) -> None:
    from pipelines.serve.server import serving

    target = save_raster(tmp_path / "raster")
    rows = image_rows(target, tmp_path)
    config = ServeConfig(target=target, port=free_port(), device="cpu", threads=1)
    with (
        serving(config) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        for row in rows:
            extra = {"seed": row["seed"]}
            made = client.images.generate(
                model="raster", prompt=str(row["prompt"]), extra_body=extra
            )
            assert base64.b64decode(made.data[0].b64_json) == row["image"]
        several = client.images.generate(prompt="3", n=3)
        pictures = [image.b64_json for image in several.data]
        again = client.images.generate(prompt="3", n=3, extra_body={"seed": several.seed})
        assert pictures == [image.b64_json for image in again.data]
        assert len(set(pictures)) == 3
        assert several.usage.output_tokens == 48
        with pytest.raises(openai.BadRequestError, match="class 5, not in 0 to 4"):
            client.images.generate(prompt="5")
        with pytest.raises(openai.BadRequestError, match="model's size"):
            client.images.generate(prompt="3", size="256x256")
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="raster", prompt="3")


def streamed(client: openai.OpenAI, seed: int, begun: threading.Event) -> str:
    """The image at the end; `begun`: when something has come."""
    asked: Any = {"prompt": "3", "partial_images": 3, "extra_body": {"seed": seed}}
    events = []
    for event in client.images.generate(stream=True, **asked):
        begun.set()
        events.append(event)
    return str(events[-1].b64_json)


def test_streamed_images_go_on_when_their_target_dies(ray_cluster) -> None:
    from pipelines.serve.server import serving

    config = ServeConfig(
        target="examples/models/digits-raster",
        target_actors=2,
        port=free_port(),
        device="cpu",
        threads=1,
    )
    with (
        serving(config) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        ThreadPoolExecutor(CLIENTS) as threads,
    ):
        watch = Watch(server)
        expected = [
            client.images.generate(prompt="3", extra_body={"seed": seed}).data[0].b64_json
            for seed in range(CLIENTS)
        ]
        for _ in range(KILLS):
            begun = threading.Event()
            streams = [threads.submit(streamed, client, seed, begun) for seed in range(CLIENTS)]
            begun.wait()
            os.kill(next(iter(watch.processes().values())), signal.SIGKILL)
            assert [each.result() for each in streams] == expected
            if watch.metrics()["resumed_requests_total"]:
                break
        else:
            pytest.fail("all had ended before the kills")
