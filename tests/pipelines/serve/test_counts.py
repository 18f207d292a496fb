"""Bodies that stand for more completions than the server takes: refused before any is made."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from models.engine_config import EngineConfig
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.fields import ChatBody, CompletionBody, ImageBody
from pipelines.serve.bodies.plan import Bounds, plan
from pipelines.serve.generation.generation import chat, completion
from pipelines.serve.generation.pictures import Pictures
from tests.pipelines.serve.local import facts_of

FACTS = facts_of(EngineConfig(target="demo"), max_unfinished=15)
NOTHING: Any = None  # neither a tokenizer nor a manager: whoever asked for one would fail
MESSAGE = {"role": "user", "content": "a"}


def refused(made: Any, completions: int) -> None:
    told = f"prompts times n are {completions} completions; the server takes 15 at once"
    with pytest.raises(ApiError, match=told) as caught:
        asyncio.run(made)
    assert (caught.value.status, caught.value.param) == (400, "n")


@pytest.mark.parametrize("prompt", ["a", [1, 2, 3], ["a"], [[1, 2]]])
def test_one_prompt_counts_once(prompt: Any) -> None:
    refused(completion(CompletionBody(prompt=prompt, n=16), NOTHING, NOTHING, FACTS, ""), 16)


@pytest.mark.parametrize("prompt", ["a", [1]])
def test_many_prompts_are_counted_before_they_are_read(prompt: Any) -> None:
    body = CompletionBody(prompt=[prompt] * 20_000, n=16)
    refused(completion(body, NOTHING, NOTHING, FACTS, ""), 320_000)


def test_the_choices_of_a_chat_are_counted_before_it_is_read() -> None:
    refused(chat(ChatBody(messages=[MESSAGE], n=16), NOTHING, NOTHING, FACTS, ""), 16)


def test_images_are_counted() -> None:
    facts = facts_of(EngineConfig(target="demo"), kind="images", max_unfinished=2)
    pictures = Pictures(SimpleNamespace(codec=lambda: None), NOTHING, facts)  # type: ignore[arg-type]
    with pytest.raises(ApiError, match="are 3 completions; the server takes 2 at once"):
        asyncio.run(pictures.call(ImageBody(prompt="3", n=3), 1, NOTHING, "", None))


def test_choices_share_their_prompt() -> None:
    """A prompt that fills a long context, 16 times, would be hundreds of megabytes."""
    bounds = Bounds(max_length=100, vocabulary=50)
    first, *others = plan(
        CompletionBody(prompt="a", n=16), [[1, 2, 3]], bounds, name="a", prediction=[4]
    ).requests
    assert all(each.prompt is first.prompt for each in others)
    assert all(each.prediction is first.prediction for each in others)
