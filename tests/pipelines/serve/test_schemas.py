"""JSON schemas of all kinds: finished answers are valid, and the same with and without drafts.

In `make soak`: 60 schemas.
"""

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import jsonschema
import openai
import pytest

from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.sizes import sized

SCHEMAS = sized(6, 60)
DRAFTERS = ("none", "lookup", "draft")
Schema = dict[str, Any]


@pytest.fixture(scope="module")
def clients(served_target: str, checkpoints: dict[str, str]) -> Iterator[list[openai.OpenAI]]:
    """Of servers with each of DRAFTERS."""
    with ExitStack() as stack:
        found = []
        for name in DRAFTERS:
            config = demo_config(served_target, checkpoints.get(name, name))
            url = stack.enter_context(local_server(replace(config, max_length=256)))
            made = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            found.append(stack.enter_context(made))
        yield found


def schema(chance: random.Random, depth: int = 0) -> Schema:
    """A random one, of an object at the top."""
    flat = ("enum", "const", "boolean", "integer", "string", "pattern", "null", "any")
    kind = chance.choice(flat + (() if depth > 2 else ("object", "array"))) if depth else "object"
    made: dict[str, Schema] = {
        "enum": {"enum": chance.sample(["red", "green", 7, None, True, "a b"], 3)},
        "const": {"const": chance.choice(["x", 0, False])},
        "boolean": {"type": "boolean"},
        "integer": {"type": "integer", "minimum": -9, "maximum": chance.randint(0, 999)},
        "string": {"type": "string", "maxLength": chance.randint(0, 5)},
        "pattern": {"type": "string", "pattern": "^[a-f]{2}-[0-9]+[.]$", "maxLength": 8},
        "null": {"type": "null"},
        "any": {"anyOf": [{"type": "boolean"}, {"type": "string", "maxLength": 3}]},
    }
    if kind == "array":
        items = schema(chance, depth + 1)
        return {"type": "array", "items": items, "minItems": 1, "maxItems": chance.randint(1, 3)}
    if kind == "object":
        names = [f"{letter}{depth}" for letter in "abc"[: chance.randint(1, 3)]]
        needed = names if chance.random() < 0.7 else names[:1]
        properties = {name: schema(chance, depth + 1) for name in names}
        shape = {"type": "object", "properties": properties, "required": needed}
        return {**shape, "additionalProperties": False}
    return made[kind]


def test_finished_answers_are_valid_and_the_same_with_every_drafter(
    clients: list[openai.OpenAI],
) -> None:
    finished = 0
    for number in range(SCHEMAS):
        asked = schema(random.Random(number))
        body: Any = {
            "model": "demo",
            "messages": [{"role": "user", "content": "Tell me."}],
            "seed": number,
            "max_tokens": 160,
            "frequency_penalty": 0.3 * (number % 2),
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": asked},
            },
        }
        found = [client.chat.completions.create(**body).choices[0] for client in clients]
        told = {(choice.message.content, choice.finish_reason) for choice in found}
        assert len(told) == 1, (asked, told)
        ((content, reason),) = told
        if reason == "stop":
            finished += 1
            jsonschema.validate(json.loads(content), asked)
    assert finished > 0.8 * SCHEMAS
    print(f"{finished} of {SCHEMAS} answers finished and valid, the same with {DRAFTERS}")
