"""Conversations on two targets find as much in the KV cache as on one.

Only in `make soak`, for the time that a server takes to start.
"""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import openai
import pytest

from pipelines.serve.config import ServeConfig
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.sizes import SOAK
from tests.ports import free_port

TALKS, TURNS, AT_ONCE = 8, 5, 4
RULES = "Answer in one sentence. Do not repeat the question. Name your sources. " * 2
LOREM = "The river was low that summer and the boats lay on the stones below the mill. "
LEAST = 0.85  # of the hits on one target: a busy target's requests may go to the other one

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not SOAK, reason="only in `make soak`"),
]


@pytest.fixture
def two_targets(ray_cluster: None, demo_target: str) -> Iterator[str]:
    from pipelines.serve.server import serving

    config = ServeConfig(
        target=demo_target,
        drafter="lookup",
        model_name="demo",
        target_actors=2,
        batch_size=8,
        device="cpu",
        threads=1,
        port=free_port(),
    )
    with serving(config) as running:
        yield running.url


def talk(client: openai.OpenAI, number: int) -> tuple[int, int, list[str]]:
    """Prompt tokens that were in the cache, all of them, and what was said."""
    chance, said = random.Random(number), list[str]()
    prompt, cached, asked = f"{RULES}{LOREM * (1 + number % 3)}{number}. ", 0, 0
    for turn in range(TURNS):
        made: Any = client.completions.create(
            model="demo", prompt=prompt, max_tokens=16, seed=turn, temperature=0
        )
        cached += made.usage.prompt_tokens_details.cached_tokens
        asked += made.usage.prompt_tokens
        said.append(made.choices[0].text)
        prompt += said[-1] + chance.choice(("Go on. ", "And then? ")) + LOREM[: 20 * (turn + 1)]
    return cached, asked, said


def talks(url: str) -> tuple[float, list[list[str]]]:
    """The share of all prompt tokens that was in the cache, and all answers."""
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120) as client,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        found = list(threads.map(partial(talk, client), range(TALKS)))
    cached, asked = (sum(each[i] for each in found) for i in (0, 1))
    return cached / asked, [said for *_, said in found]


def test_conversations_on_two_targets_stay_warm(two_targets: str, demo_target: str) -> None:
    with local_server(demo_config(demo_target, "lookup")) as one_target:
        alone, expected = talks(one_target)
    together, said = talks(two_targets)
    print(f"in the cache: {alone:.3f} of the prompts' tokens on one target, {together:.3f} on two")
    assert said == expected
    assert together > LEAST * alone
