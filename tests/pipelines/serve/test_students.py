"""Students: images of one or two passes, the same that `generate` makes; what they refuse."""

import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pyarrow.parquet as pq
import pytest

from actors.pool import students
from actors.student import StudentActor
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import Request
from pipelines.cli import main
from pipelines.options import from_mapping
from pipelines.serve.check import check
from pipelines.serve.config import ServeConfig
from pipelines.serve.door.door import Door
from pipelines.serve.models import serve_configs
from pipelines.serve.server import facts_of, fingerprint
from tests.actors.test_student_pool import Ray, Remote
from tests.pipelines.generate.image_jobs import raster
from tests.pipelines.generate.test_student import student
from tests.pipelines.serve.local import local_models
from tests.pipelines.serve.test_playground import browser, browsing, opened
from tests.ports import free_port

__all__ = ["browser", "raster", "student"]  # fixtures
STEPS = 2


class Here:
    """The actor in this process."""

    def __init__(self, folder: str) -> None:
        made = StudentActor(folder, STEPS, 1)
        self.run, self.describe = Remote(made.run), Remote(made.describe)


@pytest.fixture(scope="module")
def url(student: str) -> Iterator[str]:
    real, students.ray = students.ray, Ray  # type: ignore[assignment]
    (config,) = serve_configs({"student": student, "steps": STEPS, "model_name": "fast"})

    class Pool(students.StudentPool):
        def __exit__(self, *exception: object) -> None:
            """Its actor is no process."""

    start = partial(Pool, [Here(student)], steps=STEPS, batch_size=4)
    with local_models(Door(max_body_bytes=2**20), [(start, facts_of(config))]) as made:
        yield made
    students.ray = real


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def picture(folder: str, label: int, seed: int, steps: int) -> bytes:
    """As the student alone makes it."""
    from actors.image_tokenizer import ImageTokenizerActor

    codec = ImageTokenizerActor(folder)
    (prompt,) = codec.encode_batch([str(label)])
    asked = Request(id="a", prompt=tuple(prompt), seed=seed)
    _, (result,) = StudentActor(folder, steps, 1).run([asked])
    return codec.decode_batch([result.tokens])[0]


def images(answer: Any) -> list[bytes]:
    return [base64.b64decode(each.b64_json) for each in answer.data]


def test_a_traced_image_says_what_its_batch_took(student: str) -> None:
    asked = [Request(id=name, prompt=(8,), seed=1, trace=name == "a") for name in "ab"]
    _, (traced, other) = StudentActor(student, STEPS, 1, "student-3").run(asked)
    assert [span.name for span in traced.spans] == ["batch", "noise", "passes"]
    assert {span.where for span in traced.spans} == {"student-3"}
    assert traced.spans[0].facts == {"rows": 2, "passes": STEPS}
    assert other.spans == ()


def test_a_seed_gives_the_student_s_image(client: openai.OpenAI, student: str) -> None:
    for seed in (1, 2, 3):
        made = client.images.generate(model="fast", prompt="3", extra_body={"seed": seed})
        assert images(made) == [picture(student, 3, seed, STEPS)]
        assert (made.seed, made.paceline["exactness"]) == (seed, "approximate")
        one = client.images.generate(prompt="3", extra_body={"seed": seed, "steps": 1})
        assert images(one) == [picture(student, 3, seed, 1)]


def test_several_images_and_drawn_seeds(client: openai.OpenAI) -> None:
    several = client.images.generate(prompt="2", n=6)
    assert len(set(images(several))) > 1
    assert several.usage.output_tokens == 6 * 16
    again = client.images.generate(prompt="2", n=6, extra_body={"seed": several.seed})
    assert images(again) == images(several)


def test_a_streamed_image_is_the_whole_one(client: openai.OpenAI) -> None:
    same: Any = {"prompt": "3", "extra_body": {"seed": 4}}
    (event,) = client.images.generate(stream=True, **same)
    assert event.type == "image_generation.completed"
    assert event.b64_json == client.images.generate(**same).data[0].b64_json


def test_the_student_is_listed(client: openai.OpenAI) -> None:
    (card,) = client.models.list().data
    assert (card.id, card.student) == ("fast", {"steps": STEPS, "max_steps": 16})
    assert card.architecture["output_modalities"] == ["image"]


@browsing
def test_the_playground_asks_a_student_for_what_it_can(browser: Any, url: str) -> None:
    page = opened(browser, url)
    assert not page.get_by_label("Temperature").is_visible()
    page.get_by_label("Images").fill("2")
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("2 images in").wait_for()
    assert page.faults == []
    page.close()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"top_k": 3}, "top_k"),
        ({"steps": 0}, "steps"),
        ({"steps": 17}, "steps"),
        ({"stream": True, "partial_images": 1}, "partial_images"),
        ({"decoder": "jacobi"}, "decoder"),
        ({"student": "other"}, "student"),
        ({"guidance": 2.0}, "guidance"),
    ],
)
def test_what_a_student_cannot_honour_is_refused(
    client: openai.OpenAI, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(prompt="3", extra_body=body)
    assert refused.value.param == param


def test_the_configuration_refuses_what_a_student_cannot_do(student: str, raster: str) -> None:
    port = free_port()

    def checked(**values: Any) -> None:
        check(serve_configs({"port": port, **values}))

    checked(student=student, target=raster, steps=16)
    with pytest.raises(InvalidOption, match="steps=17 is not accepted: 1 to 16"):
        checked(student=student, steps=17)
    with pytest.raises(UnsupportedCheckpoint, match="holds no student"):
        checked(student=raster)
    with pytest.raises(InvalidOption, match="it is a student: give it as --student"):
        checked(target=student)
    refused = {"drafter": "lookup", "verify": "block", "device": "cuda", "tensor_parallel": 2}
    for name, value in refused.items():
        with pytest.raises(InvalidOption, match="with a student"):
            from_mapping(ServeConfig, {"target": student, "student": student, name: value})


def test_the_fingerprint_tells_students_and_steps_apart(student: str, raster: str) -> None:
    given = ({"target": raster}, {"student": student}, {"student": student, "steps": 2})
    prints = [fingerprint(*serve_configs(each)) for each in given]
    assert len(set(prints)) == 3
    assert fingerprint(*serve_configs({"student": student, "target": raster})) == prints[1]


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_rows_of_generate_beside_a_target(
    ray_cluster: None, student: str, raster: str, tmp_path: Path
) -> None:
    """Two models on one address; also when the student's process is killed."""
    import os
    import signal

    import ray

    from pipelines.serve.server import serving

    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt": {i}}}\n' for i in range(5)))
    out = str(tmp_path / "out")
    words = ["--input", str(tmp_path / "in.jsonl"), "--output", out, "--steps", str(STEPS)]
    words += ["--student", student, "--threads", "1", "--no-progress"]
    assert main(["generate", *words]) == 0
    models = [
        {"student": student, "target": raster, "model_name": "fast"},
        {"target": raster, "model_name": "exact", "device": "cpu"},
    ]
    configs = serve_configs({"port": free_port(), "threads": 1, "models": models})
    killed: int | None = None
    with (
        serving(*configs) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert [card.id for card in client.models.list().data] == ["fast", "exact"]
        for row in pq.read_table(out).to_pylist():
            extra = {"seed": row["seed"], "steps": STEPS}
            made = client.images.generate(model="fast", prompt=str(row["prompt"]), extra_body=extra)
            assert images(made) == [row["image"]]
            counts = ray.get(server.models[0].manager.counts.remote())
            if killed is None:
                killed = counts["student-0"]
                os.kill(killed, signal.SIGKILL)
        assert counts["student-0"] != killed
        with pytest.raises(openai.BadRequestError, match="only by a student"):
            client.images.generate(model="exact", prompt="3", extra_body={"steps": 1})
        assert client.images.generate(model="exact", prompt="3").data
