"""Conversations whose prompts are in the KV cache: the tokens of a cold one, and as many hits.

In `make soak`: 500 chained prompts.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import openai
import pytest

from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.sizes import sized

PROMPTS = sized(12, 500)
TALKS, TURNS = 3, 4  # conversations at once, and prompts of each
SYSTEM = "The system prompt of all conversations is longer than a block of the cache. "


@pytest.fixture(scope="module")
def servers(served_target: str, checkpoints: dict[str, str]) -> Iterator[dict[str, openai.OpenAI]]:
    """Clients by drafter."""
    with ExitStack() as stack:
        found = {}
        for name in ("none", "lookup", "draft"):
            config = demo_config(served_target, checkpoints.get(name, name))
            url = stack.enter_context(local_server(replace(config, max_length=256)))
            made = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            found[name] = stack.enter_context(made)
        yield found


def ask(client: openai.OpenAI, prompt: str, seed: int, **extra: Any) -> tuple[Any, int]:
    """What is said with log-probabilities, and the prompt's tokens that were in the cache."""
    made = client.completions.create(
        model="demo",
        prompt=prompt,
        seed=seed,
        max_tokens=12,
        temperature=seed % 2,
        logprobs=0,
        extra_body=extra,
    )
    (choice,) = made.choices
    said = choice.text, choice.finish_reason, choice.logprobs.token_logprobs
    return said, made.usage.prompt_tokens_details.cached_tokens


def test_warm_answers_are_cold_ones_and_drafts_cost_no_hits(
    servers: dict[str, openai.OpenAI],
) -> None:
    chance = random.Random(0)
    hits, read = dict.fromkeys(servers, 0), 0
    talks = [""] * TALKS
    for number in range(PROMPTS):
        talk, turn = number % TALKS, number // TALKS % TURNS
        if turn == 0:
            talks[talk] = f"{SYSTEM}{number}: "
        cold, cached = ask(servers["none"], talks[talk], number, cache_salt=f"cold {number}")
        assert cached == 0
        for name, client in servers.items():
            warm, cached = ask(client, talks[talk], number)
            assert warm == cold, (number, name)
            hits[name] += cached
        read += len(talks[talk])
        talks[talk] += cold[0] + chance.choice(("And then? ", "Why? ", "Go on. "))
    assert hits["none"] > read / 3
    assert len(set(hits.values())) == 1, hits
    print(f"{PROMPTS} prompts of {read} tokens; in the cache: {hits}")
