"""With two targets, a conversation goes where its beginning was read before.

In `make soak`: more conversations, with more turns.
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import openai
import pytest

from actors.pool.requests.warmth import BLOCK
from pipelines.serve.config import ServeConfig
from tests.pipelines.serve.sizes import SOAK, sized
from tests.ports import free_port

TALKS, TURNS = sized(6, 24), sized(3, 20)
AT_ONCE = 3  # so few that the bound of load never sends one away from where it is warm
BLOCKS = 8  # that the prompts of a conversation begin with
TOKENS = range(300, 1800)
CHOICES = 12  # of one body

pytestmark = [pytest.mark.ray, pytest.mark.timeout(2 * SOAK + 300)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answer; `actors`: the targets that its choices were on."""

    text: str
    cached: int
    actors: tuple[str, ...]


@pytest.fixture(scope="module")
def client(ray_cluster: None) -> Iterator[openai.OpenAI]:
    """Of a server with two targets."""
    from pipelines.serve.server import serving

    config = ServeConfig(
        target="examples/models/text-target",
        drafter="lookup",
        target_actors=2,
        batch_size=4,
        device="cpu",
        threads=1,
        port=free_port(),
    )
    with (
        serving(config) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def tokens(chance: random.Random, count: int) -> list[int]:
    return chance.choices(TOKENS, k=count)


def ask(client: openai.OpenAI, prompt: list[int], salt: str, draft: bool, n: int = 1) -> Answered:
    options = {"draft": draft, "trace_events": True}
    made = client.completions.create(
        model="text-target",
        prompt=prompt,
        seed=1,
        max_tokens=8,
        n=n,
        extra_body={"cache_salt": salt, "paceline": options, "ignore_eos": True},
    )
    told = made.model_dump()["paceline"]["trace_events"]["traceEvents"]
    placed = (each["args"]["actor"] for each in told if each["name"] == "on an actor")
    assert made.usage is not None
    assert made.usage.prompt_tokens_details is not None
    cached = made.usage.prompt_tokens_details.cached_tokens or 0
    return Answered(text=made.choices[0].text, cached=cached, actors=tuple(placed))


def talk(
    client: openai.OpenAI, prompts: Sequence[list[list[int]]], *, salt: str, draft: bool
) -> dict[tuple[int, int], Answered]:
    """All answers, by conversation and turn; conversations have their turns in random order."""
    found, chance = {}, random.Random(1)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for turn in range(TURNS):
            order = chance.sample(range(TALKS), TALKS)
            for first in range(0, TALKS, AT_ONCE):  # no one waits while another one still runs
                some = order[first : first + AT_ONCE]
                asked = [prompts[each][turn] for each in some]
                answers = threads.map(partial(ask, client, salt=salt, draft=draft), asked)
                found |= {(each, turn): a for each, a in zip(some, answers, strict=True)}
    return found


def at_random() -> float:
    """The share of beginnings in the cache of an actor that was chosen by chance."""
    chance, warm = random.Random(2), 0
    for _ in range(TALKS):
        seen: set[int] = set()
        for _ in range(TURNS):
            actor = chance.randrange(2)
            warm += actor in seen
            seen.add(actor)
    return warm / (TALKS * TURNS)


def test_conversations_go_where_they_are_warm_and_say_the_same(client: openai.OpenAI) -> None:
    chance = random.Random(0)
    begun = [tokens(chance, BLOCKS * BLOCK) for _ in range(TALKS)]
    prompts = [[each + tokens(chance, 9) for _ in range(TURNS)] for each in begun]
    drafted = talk(client, prompts, salt="drafted", draft=True)
    plain = talk(client, prompts, salt="plain", draft=False)
    for (each, turn), warm in drafted.items():
        cold = ask(client, prompts[each][turn], salt=f"{each} {turn}", draft=True)
        assert cold.cached == 0
        assert warm.text == plain[each, turn].text == cold.text
    cached = {key: answer.cached for key, answer in drafted.items()}
    assert cached == {(i, turn): turn and BLOCKS * BLOCK for i, turn in drafted}
    assert cached == {key: answer.cached for key, answer in plain.items()}
    where = [{drafted[i, turn].actors for turn in range(TURNS)} for i in range(TALKS)]
    assert [len(actors) for actors in where] == [1] * TALKS
    assert len(set.union(*where)) == 2
    share = sum(map(bool, cached.values())) / len(cached)
    sys.stdout.write(f"\nwarm: {share:.2f} of the requests, by chance {at_random():.2f}\n")
    assert share == (TURNS - 1) / TURNS > at_random()


def test_a_warm_target_is_not_overloaded(client: openai.OpenAI) -> None:
    prompt = tokens(random.Random(3), BLOCKS * BLOCK + 9)
    (first,) = ask(client, prompt, "load", draft=True).actors
    placed = Counter(ask(client, prompt, "load", draft=True, n=CHOICES).actors)
    (other,) = placed.keys() - {first}
    assert sum(placed.values()) == CHOICES
    assert abs(placed[first] - placed[other]) <= BLOCKS // 4 + 1
