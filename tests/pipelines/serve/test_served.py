"""Several models behind one address, without Ray: who answers, and what is refused."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any

import openai
import pytest

from models.engine_config import EngineConfig
from pipelines.serve.door.door import Door
from pipelines.serve.door.limits import Limits
from tests.pipelines.generate.image_jobs import save_raster
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import LoopPool, facts_of, local_models
from tests.pipelines.serve.test_playground import browser, browsing, opened

__all__ = ["browser"]  # a fixture


@pytest.fixture(scope="module")
def url(demo_target: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    raster = save_raster(tmp_path_factory.mktemp("raster"))
    engines = {
        "plain": demo_config(demo_target, "none"),
        "drafted": demo_config(demo_target, "lookup"),
        "digits": EngineConfig(target=raster, batch_size=4, device="cpu", threads=1),
    }
    models = [
        (
            partial(LoopPool.start, engine),
            facts_of(engine, name=name, kind="images" if name == "digits" else "text"),
        )
        for name, engine in engines.items()
    ]
    with local_models(Door(max_body_bytes=2**20, limits=Limits(per_client=8)), models) as made:
        yield made


def ask(url: str, body: Any = None) -> tuple[int, str]:
    """Status and text of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_the_model_is_chosen_by_its_name(client: openai.OpenAI) -> None:
    cards = {card.id: card for card in client.models.list().data}
    assert list(cards) == ["plain", "drafted", "digits"]
    assert client.models.retrieve("digits") == cards["digits"]
    same: Any = {"prompt": "Once upon a time", "seed": 3, "max_tokens": 24}
    answers = {name: client.completions.create(model=name, **same) for name in list(cards)[:2]}
    assert {name: answer.model for name, answer in answers.items()} == {n: n for n in answers}
    assert len({answer.choices[0].text for answer in answers.values()}) == 1
    assert client.images.generate(prompt="3").data[0].b64_json  # the only model of images


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("completions", {"model": "gpt", "prompt": "a"}, 404, "has 'plain', 'drafted', 'digits'"),
        ("completions", {"prompt": "a"}, 400, "several make texts: 'plain', 'drafted'"),
        ("completions", {"model": "digits", "prompt": "a"}, 400, "'digits' does not make texts"),
        ("images/generations", {"model": "plain", "prompt": "3"}, 400, "does not make images"),
    ],
)
def test_a_model_that_cannot_answer_is_refused(
    url: str, path: str, body: dict[str, Any], status: int, told: str
) -> None:
    found, text = ask(f"{url}/v1/{path}", body)
    error = json.loads(text)["error"]
    assert (found, error["param"]) == (status, "model")
    assert told in error["message"]
    assert error["code"] == ("model_not_found" if status == 404 else error["code"])


def test_metrics_are_by_model(url: str, client: openai.OpenAI) -> None:
    def tokens() -> dict[str, float]:
        lines = ask(f"{url}/metrics")[1].splitlines()
        assert lines.count("# TYPE paceline_generation_tokens_total counter") == 1
        name = "paceline_generation_tokens_total{"
        found = [line for line in lines if line.startswith(name)]
        return {line.split('"')[1]: float(line.split()[-1]) for line in found}

    before = tokens()
    made = client.completions.create(model="drafted", prompt="Once", max_tokens=5, seed=1)
    told = made.usage.completion_tokens
    assert tokens() == before | {"drafted": before["drafted"] + told}
    assert list(before) == ["plain", "drafted", "digits"]


def test_readiness_is_of_all_models(url: str) -> None:
    assert ask(f"{url}/readyz")[0] == 200


def test_a_client_s_completions_of_all_models_count(client: openai.OpenAI) -> None:
    """The limit of 8 holds for models together."""
    long: Any = {"prompt": "a", "max_tokens": 400, "extra_body": {"ignore_eos": True}}
    with client.completions.create(model="plain", n=6, stream=True, **long) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError, match="6 completions of this key run"):
            client.completions.create(model="drafted", prompt="a", n=3)


@browsing
def test_the_playground_offers_all_models(browser: Any, url: str) -> None:
    page = opened(browser, url)
    assert page.get_by_label("Prompt").is_visible()
    page.get_by_label("Model").select_option("digits")
    assert not page.get_by_label("Prompt").is_visible()
    page.get_by_label("Images").fill("2")
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("2 images in").wait_for()
    page.get_by_label("Model").select_option("plain")
    assert page.get_by_label("Prompt").is_visible()
    assert page.faults == []
    page.close()
