"""Grammars, tools and predictions over HTTP: valid, and the same bytes with every drafter."""

import json
from typing import Any

import jsonschema
import openai
import pytest

from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "feed", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "sleep", "description": "Until tomorrow."}},
]
MESSAGES: Any = [{"role": "user", "content": "Tell me of a cat."}]
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "animal", "schema": SCHEMA}}
BODIES: dict[str, dict[str, Any]] = {
    "schema": {"response_format": FORMAT},
    "penalties": {"response_format": FORMAT, "frequency_penalty": 0.5, "n": 2},
    "regex": {"extra_body": {"structured_outputs": {"regex": "[a-z ]{5,9}[.]"}}},
    "choice": {"extra_body": {"structured_outputs": {"choice": ["yes", "no", "maybe so"]}}},
    "grammar": {"extra_body": {"structured_outputs": {"grammar": 'start: "(" start ")" | "x"'}}},
    "required": {"tools": TOOLS, "tool_choice": "required"},
    "named": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "feed"}}},
}


def ask(client: openai.OpenAI, name: str, seed: int = 1, **more: Any) -> Any:
    body = {"model": "demo", "messages": MESSAGES, "seed": seed, "max_tokens": 60}
    return client.chat.completions.create(**body | BODIES[name] | more)


def said(answer: Any) -> list[Any]:
    """What the choices say, without the ids of calls."""
    told = []
    for choice in answer.choices:
        calls = choice.message.tool_calls or []
        functions = [(call.function.name, call.function.arguments) for call in calls]
        told.append((choice.message.content, functions, choice.finish_reason))
    return told


@pytest.fixture(scope="module")
def expected(demo_target: str) -> dict[str, Any]:
    """Of a server without a drafter."""
    with (
        local_server(demo_config(demo_target, "none")) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        return {name: said(ask(client, name)) for name in BODIES}


def test_every_answer_is_valid(expected: dict[str, Any]) -> None:
    for name in ("schema", "penalties"):
        for content, _, reason in expected[name]:
            assert reason == "stop"
            jsonschema.validate(json.loads(content), SCHEMA)
    assert expected["choice"][0][0] in ("yes", "no", "maybe so")
    for name in ("required", "named"):
        ((content, ((called, arguments),), reason),) = expected[name]
        assert (content, reason) == (None, "tool_calls")
        jsonschema.validate(json.loads(arguments), SCHEMA if called == "feed" else {})
    assert expected["named"][0][1][0][0] == "feed"


def test_the_same_with_lookup(demo: openai.OpenAI, expected: dict[str, Any]) -> None:
    assert {name: said(ask(demo, name)) for name in BODIES} == expected


def test_the_same_with_a_tree_of_a_draft_model(demo_target, expected) -> None:
    config = demo_config(demo_target, "examples/models/text-draft")
    with (
        local_server(config) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert {name: said(ask(client, name)) for name in BODIES} == expected


def test_compact_json_takes_few_passes(demo: openai.OpenAI) -> None:
    answers = [ask(demo, "schema", seed=seed) for seed in range(5)]
    passes = sum(answer.paceline["target_passes"] for answer in answers)
    assert passes <= 0.6 * sum(answer.usage.completion_tokens for answer in answers)


def test_a_stream_adds_up(demo: openai.OpenAI, expected: dict[str, Any]) -> None:
    for name in ("schema", "required", "named"):
        body = {"model": "demo", "messages": MESSAGES, "seed": 1, "max_tokens": 60}
        with demo.chat.completions.stream(**body | BODIES[name]) as stream:
            for _ in stream:
                pass
            assert said(stream.get_final_completion()) == expected[name]


def test_a_call_that_is_cut_is_the_same_whole_and_streamed(demo: openai.OpenAI) -> None:
    for limit in (3, 8, 14):
        answer = ask(demo, "named", max_tokens=limit)
        assert answer.choices[0].finish_reason == "length"
        text = ""
        for chunk in ask(demo, "named", max_tokens=limit, stream=True):
            for call in chunk.choices[0].delta.tool_calls or []:
                text += call.function.arguments or ""
        assert text == answer.choices[0].message.tool_calls[0].function.arguments


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"structured_outputs": {"regex": "(?=a)"}}, "structured_outputs", "look-around"),
        ({"structured_outputs": {}}, "structured_outputs", "it has nothing"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "one of"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs", "a JSON schema"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_object"),
        ({"response_format": FORMAT, "ignore_eos": True}, "ignore_eos", "false with a grammar"),
        ({"response_format": FORMAT, "structured_outputs": {"regex": "a"}}, None, "give one"),
        ({"tools": TOOLS}, "tool_choice", "auto is not supported"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "eat"}}},
            "tool_choice",
            "there are feed, sleep",
        ),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": FORMAT}, None, "give one"),
        ({"prediction": {"type": "content"}}, "prediction.content", "missing"),
        ({"guided_regex": "a"}, "guided_regex", "use structured_outputs"),
    ],
)
def test_what_cannot_be_constrained_is_refused(demo, body, param, told) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as refused:
        demo.chat.completions.create(model="demo", messages=MESSAGES, extra_body=body)
    assert param is None or refused.value.param == param


def test_tools_without_a_call_and_calls_in_the_messages_are_read(demo: openai.OpenAI) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "sleep", "arguments": "{}"}}
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "asleep"},
    ]
    answer = demo.chat.completions.create(
        model="demo", messages=messages, tools=TOOLS, tool_choice="none", max_tokens=4, seed=1
    )
    assert answer.choices[0].message.tool_calls is None


def test_a_prediction_changes_the_passes_and_nothing_else(demo: openai.OpenAI) -> None:
    body: dict[str, Any] = {"model": "demo", "messages": MESSAGES, "seed": 3, "max_tokens": 80}
    plain = demo.chat.completions.create(**body)
    text = plain.choices[0].message.content
    right = demo.chat.completions.create(**body, prediction={"type": "content", "content": text})
    parts: Any = [{"type": "text", "text": "Something"}, {"type": "text", "text": " else."}]
    wrong = demo.chat.completions.create(**body, prediction={"type": "content", "content": parts})
    assert right.choices == wrong.choices == plain.choices
    details = right.usage.completion_tokens_details
    assert details.accepted_prediction_tokens > 40
    assert right.paceline["target_passes"] * 2 < plain.paceline["target_passes"]
    assert wrong.usage.completion_tokens_details.rejected_prediction_tokens < 20
    assert plain.usage.completion_tokens_details is None
