"""/v1/responses and /v1/messages: the official clients read them, and they say what chats say."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.pipelines.serve.test_constrained import FORMAT, MESSAGES, SCHEMA, TOOLS

TEXT = MESSAGES[0]["content"]
FLAT: Any = [{"type": "function", **tool["function"]} for tool in TOOLS]
THEIRS: Any = [
    {"name": tool["function"]["name"], "input_schema": tool["function"].get("parameters", {})}
    for tool in TOOLS[:1]
]


@pytest.fixture(scope="module")
def claude(demo_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=demo_url, api_key="none", max_retries=0) as made:
        yield made


def chat(client: openai.OpenAI, **body: Any) -> Any:
    same = {"model": "demo", "messages": MESSAGES, "seed": 5, "max_tokens": 40}
    return client.chat.completions.create(**same | body).choices[0]


def respond(client: openai.OpenAI, **body: Any) -> Any:
    extra = {"seed": 5, **body.pop("extra_body", {})}
    same = {"model": "demo", "input": TEXT, "max_output_tokens": 40, "extra_body": extra}
    return client.responses.create(**same | body)


def test_a_response_says_what_a_chat_says(demo: openai.OpenAI) -> None:
    expected = chat(demo)
    for given in (TEXT, [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}]):
        made = respond(demo, input=given)
        assert made.output_text == expected.message.content
        assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert made.usage.output_tokens == 40
        assert made.store is False


def test_a_response_with_a_schema_or_a_call(demo: openai.OpenAI) -> None:
    expected = chat(demo, response_format=FORMAT, max_tokens=60).message.content
    shape: Any = {"type": "json_schema", "name": "animal", "schema": SCHEMA}
    made = respond(demo, text={"format": shape}, max_output_tokens=60)
    assert (made.output_text, made.status) == (expected, "completed")
    expected = chat(demo, tools=TOOLS, tool_choice="required", max_tokens=60).message.tool_calls[0]
    (call,) = respond(demo, tools=FLAT, tool_choice="required", max_output_tokens=60).output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == (expected.function.name, expected.function.arguments)
    items = [
        {"role": "user", "content": TEXT},
        call.model_dump(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "done"},
    ]
    answered = respond(demo, input=items, instructions="Be brief.", max_output_tokens=4)
    assert answered.usage.output_tokens == 4


@pytest.mark.parametrize("more", [{}, {"tools": FLAT, "tool_choice": "required"}])
def test_a_streamed_response_adds_up(demo: openai.OpenAI, more: dict[str, Any]) -> None:
    whole = respond(demo, max_output_tokens=60, **more)
    same: dict[str, Any] = {"model": "demo", "input": TEXT, "max_output_tokens": 60}
    with demo.responses.stream(**same, extra_body={"seed": 5}, **more) as stream:
        events = list(stream)
    numbers = [event.sequence_number for event in events]
    last = events[-1].response  # completed, or incomplete
    assert numbers == list(range(len(numbers)))
    assert last.output_text == whole.output_text
    assert last.usage == whole.usage
    if more:
        assert last.output[0].arguments == whole.output[0].arguments
        begun = next(e for e in events if e.type == "response.output_item.added")
        told = (e for e in events if e.type == "response.function_call_arguments.delta")
        assert begun.item.arguments == ""
        assert "".join(event.delta for event in told) == whole.output[0].arguments


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "x"}, "previous_response_id"),
        ({"tools": [{**FLAT[0], "parameters": {"$defs": []}}], "tool_choice": "required"}, "tools"),
        ({"store": True}, "store"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"max_output_tokens": 5000}, "max_output_tokens"),
        ({"input": [{"type": "image"}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0]"),
    ],
)
def test_responses_are_refused_by_the_field_s_name(demo, body, param) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        respond(demo, **body)
    assert refused.value.param == param


def say(client: anthropic.Anthropic, **body: Any) -> Any:
    same = {"model": "demo", "messages": MESSAGES, "max_tokens": 40, "extra_body": {"seed": 5}}
    return client.messages.create(**same | body)


def test_a_message_says_what_a_chat_says(demo: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    expected = chat(demo)
    blocks: Any = [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]
    for given in (MESSAGES, blocks):
        made = say(claude, messages=given)
        assert made.content[0].text == expected.message.content
        assert (made.stop_reason, made.usage.output_tokens) == ("max_tokens", 40)
    stopped = chat(demo, stop=["e"])
    made = say(claude, stop_sequences=["e"])
    assert made.content[0].text == stopped.message.content
    assert (made.stop_reason, made.stop_sequence) == ("stop_sequence", "e")
    counted = claude.messages.count_tokens(model="demo", messages=MESSAGES, system="Be brief.")
    assert counted.input_tokens > made.usage.input_tokens


def test_a_message_that_uses_a_tool(demo: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    tools = TOOLS[:1]
    call = chat(demo, tools=tools, tool_choice="required", max_tokens=60).message.tool_calls[0]
    body: dict[str, Any] = {"tools": THEIRS, "tool_choice": {"type": "any"}, "max_tokens": 60}
    made = say(claude, **body)
    (used,) = made.content
    assert (made.stop_reason, used.input) == ("tool_use", json.loads(call.function.arguments))
    with claude.messages.stream(
        model="demo", messages=MESSAGES, extra_body={"seed": 5}, **body
    ) as stream:
        assert stream.get_final_message().content[0].input == used.input
    result = {"type": "tool_result", "tool_use_id": used.id, "content": "fed"}
    history: Any = [
        *MESSAGES,
        {"role": "assistant", "content": [used.model_dump()]},
        {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
    ]
    assert say(claude, messages=history, max_tokens=4).usage.output_tokens == 4


def test_a_streamed_message_adds_up(claude: anthropic.Anthropic) -> None:
    whole = say(claude)
    with claude.messages.stream(
        model="demo", messages=MESSAGES, max_tokens=40, extra_body={"seed": 5}
    ) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        assert stream.get_final_message().usage.output_tokens == 40


OPTIONS: dict[str, dict[str, Any]] = {
    "top_k": {"top_k": 5},
    "min_p": {"min_p": 0.2, "temperature": 1.5},
    "penalties": {"presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.2},
    "bias": {"logit_bias": {"70": 30}},
    "min_tokens": {"min_tokens": 3, "stop_token_ids": [70], "logit_bias": {"70": 30}},
    "ignore_eos": {"ignore_eos": True, "cache_salt": "a", "priority": 3},
    "regex": {"structured_outputs": {"regex": "[a-z ]{5,9}[.]"}},
    "plain": {"paceline": {"draft": False}},
    "prediction": {"prediction": {"type": "content", "content": "Once upon a time"}},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_chats_are_those_of_the_other_forms(demo, claude, name) -> None:
    asked = {"seed": 5, **OPTIONS[name]}
    expected = chat(demo, extra_body=asked).message.content
    response, message = respond(demo, extra_body=asked), say(claude, extra_body=asked)
    assert response.output_text == message.content[0].text == expected
    if name == "prediction":
        details = response.usage.output_tokens_details
        assert details.rejected_prediction_tokens == message.usage.rejected_prediction_tokens
    if name == "plain":
        assert response.metrics == message.metrics == {"speculative_decoding": None}


def test_a_response_stops_and_its_stream_is_padded(demo: openai.OpenAI) -> None:
    stopped = chat(demo, stop=["e"]).message.content
    assert respond(demo, extra_body={"stop": "e"}).output_text == stopped
    events = respond(demo, stream=True, stream_options={"include_obfuscation": True})
    found = [event for event in events if event.type == "response.output_text.delta"]
    assert all(isinstance(event.obfuscation, str) for event in found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("echo", True),
        ("response_format", FORMAT),
        ("paceline", {"trace": True}),
        ("paceline", {"trace_events": True}),
    ],
)
def test_what_the_other_forms_cannot_honour_is_refused_by_name(demo, claude, field, value) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        respond(demo, stream=True, extra_body={field: value})
    path = field if field != "paceline" else f"paceline.{next(iter(value))}"
    assert refused.value.param == path
    with pytest.raises(anthropic.BadRequestError, match=path):
        say(claude, stream=True, extra_body={field: value})


def test_marks_of_what_to_cache_are_accepted(claude: anthropic.Anthropic) -> None:
    """Clients for agents send them; prompts share the KV cache in any case."""
    mark = {"cache_control": {"type": "ephemeral"}}
    tools: Any = [{**THEIRS[0], **mark}]
    system: Any = [{"type": "text", "text": "Be brief.", **mark}]
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": TEXT, **mark}]}]
    body: dict[str, Any] = {"tool_choice": {"type": "none"}, "messages": messages}
    marked = say(claude, system=system, tools=tools, **body)
    assert (
        marked.content[0].text
        == say(claude, system="Be brief.", tools=THEIRS, **body | {"messages": MESSAGES})
        .content[0]
        .text
    )


def test_a_call_that_a_stop_sequence_cuts_is_not_to_be_made(claude: anthropic.Anthropic) -> None:
    body: dict[str, Any] = {"tools": THEIRS, "tool_choice": {"type": "any"}}
    made = say(claude, **body, stop_sequences=["arg"])
    assert (made.stop_reason, made.stop_sequence) == ("stop_sequence", "arg")


def test_errors_of_messages_are_anthropic_s(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="stop_sequences") as refused:
        say(claude, stop_sequences=[""])
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError, match="thinking is not supported"):
        say(claude, thinking={"type": "enabled", "budget_tokens": 2000})
    with pytest.raises(anthropic.BadRequestError, match="tool_choice auto"):
        say(claude, tools=THEIRS)
    with pytest.raises(anthropic.BadRequestError, match="text, tool_use or tool_result"):
        say(claude, messages=[{"role": "user", "content": [{"type": "image"}]}])
