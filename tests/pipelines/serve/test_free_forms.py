"""tool_choice auto on /v1/responses and /v1/messages: the parts of chats, whole and streamed."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.pipelines.serve.conftest import TAG
from tests.pipelines.serve.test_constrained import MESSAGES, TOOLS

FLAT: Any = [{"type": "function", **tool["function"]} for tool in TOOLS]
NOTHING = {"type": "object", "additionalProperties": False}
THEIRS: Any = [
    {
        "name": tool["function"]["name"],
        "input_schema": tool["function"].get("parameters", NOTHING),
    }
    for tool in TOOLS
]
CASES = [(1, 100), (2, 9), (4, -100)]  # a seed, and how much the tag is wanted


@pytest.fixture(scope="module")
def claudes(tagged_clients: list[openai.OpenAI]) -> Iterator[list[anthropic.Anthropic]]:
    """Of the same servers."""
    urls = [str(client.base_url).removesuffix("v1/") for client in tagged_clients]
    made = [anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) for url in urls]
    yield made
    for each in made:
        each.close()


def length(bias: int) -> int:
    """Tokens of an answer: a call shall have an end."""
    return 150 if bias > 0 else 30


def extra(seed: int, bias: int) -> dict[str, Any]:
    return {"seed": seed, "logit_bias": {str(TAG): bias}}


def expected(client: openai.OpenAI, seed: int, bias: int, **more: Any) -> list[Any]:
    """The parts that a chat has."""
    same: Any = {"model": "demo", "messages": MESSAGES, "tools": TOOLS}
    same["max_tokens"] = length(bias)
    message = client.chat.completions.create(**same, **extra(seed, bias), **more).choices[0].message
    functions = [call.function for call in message.tool_calls or []]
    calls = [(function.name, function.arguments) for function in functions]
    return [message.content] * bool(message.content) + calls


def outputs(response: Any) -> list[Any]:
    return [
        item.content[0].text if item.type == "message" else (item.name, item.arguments)
        for item in response.output
    ]


def blocks(message: Any) -> list[Any]:
    return [
        block.text if block.type == "text" else (block.name, block.input)
        for block in message.content
    ]


def check_events(events: list[Any]) -> None:
    """Every output item begins, goes on and ends before the next one, with its own index."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    of_items = [event for event in events if hasattr(event, "output_index")]
    assert [e.output_index for e in of_items] == sorted(e.output_index for e in of_items)
    for index, item in enumerate(events[-1].response.output):
        mine = [event for event in of_items if event.output_index == index]
        kinds = [event.type.removeprefix("response.") for event in mine]
        assert (kinds[0], kinds[-1]) == ("output_item.added", "output_item.done")
        assert {e.item_id for e in mine[1:-1]} == {item.id} == {mine[0].item.id}
        assert mine[-1].item.model_dump() == item.model_dump()
        if item.type == "function_call":
            assert kinds[-2] == "function_call_arguments.done"
            assert mine[-2].arguments == item.arguments
            assert "".join(event.delta for event in mine[1:-2]) == item.arguments


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "bias"), CASES)
def test_a_response_has_the_chat_s_text_and_calls(
    tagged_clients: list[openai.OpenAI], seed: int, bias: int
) -> None:
    parts = expected(tagged_clients[0], seed, bias)
    given: Any = {"model": "demo", "input": MESSAGES, "tools": FLAT}
    given["max_output_tokens"] = length(bias)
    for client in tagged_clients:
        whole = client.responses.create(**given, extra_body=extra(seed, bias))
        assert outputs(whole) == parts
        assert whole.tool_choice == "auto"
        stream = client.responses.create(**given, extra_body=extra(seed, bias), stream=True)
        events: Any = list(stream)
        check_events(events)
        last = events[-1].response
        assert (outputs(last), last.status) == (parts, whole.status)
    with client.responses.stream(**given, extra_body=extra(seed, bias)) as read:
        assert outputs(list(read)[-1].response) == parts
    if bias == 100:
        ((name, _), *_) = parts
        assert name in ("feed", "sleep")


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "bias"), CASES)
def test_a_message_has_the_chat_s_text_and_calls(
    tagged_clients: list[openai.OpenAI],
    claudes: list[anthropic.Anthropic],
    seed: int,
    bias: int,
) -> None:
    parts = expected(tagged_clients[0], seed, bias, parallel_tool_calls=False)
    given: Any = {"model": "demo", "messages": MESSAGES, "tools": THEIRS}
    given["max_tokens"] = length(bias)
    given["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
    for client in claudes:
        whole = client.messages.create(**given, extra_body=extra(seed, bias))
        with client.messages.stream(**given, extra_body=extra(seed, bias)) as stream:
            events = [event for event in stream if event.type.startswith("content_block")]
            streamed = stream.get_final_message()
        assert blocks(streamed) == blocks(whole)
        assert streamed.stop_reason == whole.stop_reason
        assert [event.index for event in events] == sorted(event.index for event in events)
        if whole.stop_reason == "max_tokens":
            assert blocks(whole)[:1] == parts[:1] or not isinstance(parts[0], str)
            continue
        told = [part if isinstance(part, str) else (part[0], json.loads(part[1])) for part in parts]
        assert blocks(whole) == told
        assert whole.stop_reason == ("end_turn" if isinstance(parts[-1], str) else "tool_use")


def test_a_conversation_with_calls_goes_on(
    tagged_clients: list[openai.OpenAI], claudes: list[anthropic.Anthropic]
) -> None:
    """A text, two calls and their results, in three forms: one prompt."""
    calls = [("1", "sleep", {}), ("2", "feed", {"name": "Tom"})]
    theirs = [{"type": "tool_use", "id": i, "name": name, "input": a} for i, name, a in calls]
    results = [{"type": "tool_result", "tool_use_id": i, "content": "done"} for i, _, _ in calls]
    said = {"role": "assistant", "content": [{"type": "text", "text": "I will."}, *theirs]}
    asked: Any = {"model": "demo", "max_tokens": 4, "tools": THEIRS}
    history: Any = [*MESSAGES, said, {"role": "user", "content": results}]
    message = claudes[0].messages.create(**asked, messages=history, extra_body={"seed": 1})
    items: list[Any] = [
        {"type": "function_call", "call_id": i, "name": name, "arguments": json.dumps(a)}
        for i, name, a in calls
    ]
    items += [{"type": "function_call_output", "call_id": i, "output": "done"} for i, _, _ in calls]
    flat: Any = [
        {"type": "function", "name": tool["name"], "parameters": tool["input_schema"]}
        for tool in THEIRS
    ]
    response = tagged_clients[0].responses.create(
        model="demo",
        input=[*MESSAGES, {"role": "assistant", "content": "I will."}, *items],
        tools=flat,
        max_output_tokens=4,
        extra_body={"seed": 1},
    )
    assert response.usage is not None
    assert response.usage.input_tokens == message.usage.input_tokens
    assert response.output_text == message.content[0].text
