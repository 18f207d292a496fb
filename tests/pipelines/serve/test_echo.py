"""Prompts that are returned, with log-probabilities: texts are scored as lm-eval does it."""

import math
from typing import Any

import openai
import pytest

PROMPT = "Once upon a time there was a cat."


def score(client: openai.OpenAI, prompt: Any, **more: Any) -> Any:
    same: dict[str, Any] = {"model": "demo", "max_tokens": 0, "echo": True, "logprobs": 1}
    return client.completions.create(prompt=prompt, **same | more)


def test_scores_are_those_of_the_tokens_as_they_would_be_generated(demo: openai.OpenAI) -> None:
    """Greedy text, scored as a prompt: every token has the log-probability that it was given."""
    made = demo.completions.create(
        model="demo", prompt=PROMPT, max_tokens=12, temperature=0, logprobs=1
    ).choices[0]
    counted = demo.completions.create(model="demo", prompt=PROMPT, max_tokens=1).usage
    scored = score(demo, PROMPT + made.text).choices[0]
    told = scored.logprobs
    assert scored.text == PROMPT + made.text
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    tail = told.token_logprobs[counted.prompt_tokens :]
    assert told.tokens[counted.prompt_tokens :] == made.logprobs.tokens[: len(tail)]
    expected = made.logprobs.token_logprobs[: len(tail)]
    assert all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(tail, expected, strict=True))
    assert len(tail) >= 11
    assert "".join(told.tokens) == scored.text
    assert told.text_offset == [sum(map(len, told.tokens[:i])) for i in range(len(told.tokens))]


def test_prompt_and_completion_together(demo: openai.OpenAI) -> None:
    plain = demo.completions.create(model="demo", prompt=PROMPT, seed=3, max_tokens=5, logprobs=0)
    both = score(demo, [PROMPT, "Twice"], seed=3, max_tokens=5, logprobs=0, n=2)
    first = both.choices[0]
    assert first.text == PROMPT + plain.choices[0].text
    assert first.logprobs.tokens[-5:] == plain.choices[0].logprobs.tokens
    assert [choice.text.startswith("Twice") for choice in both.choices] == [False] * 2 + [True] * 2
    scored = score(demo, PROMPT)
    assert scored.usage.completion_tokens == 0
    assert scored.choices[0].text == PROMPT
    assert scored.choices[0].finish_reason == "length"


def test_a_stream_begins_with_the_prompt(demo: openai.OpenAI) -> None:
    body: Any = {"model": "demo", "prompt": PROMPT, "seed": 3, "max_tokens": 5, "echo": True}
    whole = demo.completions.create(**body).choices[0].text
    texts = [chunk.choices[0].text for chunk in demo.completions.create(stream=True, **body)]
    assert texts[0] == PROMPT
    assert "".join(texts) == whole


def test_chunks_can_be_padded(demo: openai.OpenAI) -> None:
    body: Any = {"model": "demo", "prompt": PROMPT, "seed": 3, "max_tokens": 20, "stream": True}
    options: Any = {"include_obfuscation": True}
    plain = list(demo.completions.create(**body))
    padded = list(demo.completions.create(**body, stream_options=options))
    texts = ["".join(chunk.choices[0].text for chunk in chunks) for chunks in (plain, padded)]
    assert texts[0] == texts[1]
    assert len({len(chunk.obfuscation) for chunk in padded}) > 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"echo": True, "logprobs": 1, "stream": True}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"prompt_logprobs": 1}}, "prompt_logprobs"),
    ],
)
def test_what_cannot_be_scored_is_refused(demo: openai.OpenAI, body: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        demo.completions.create(**{"model": "demo", "prompt": PROMPT} | body)
    assert refused.value.param == param
