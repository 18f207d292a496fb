"""From bytes to fields: what is wrong is named, and nothing is ignored."""

import json
import re
import time
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.fields import (
    NEUTRAL,
    NEUTRAL_OF_IMAGES,
    OF_IMAGES,
    UNSUPPORTED,
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    ImageBody,
    TokenizeBody,
)
from pipelines.serve.bodies.messages import MessagesBody
from pipelines.serve.bodies.read_body import read_body
from pipelines.serve.bodies.responses import ResponsesBody
from pipelines.serve.bodies.shown import shown

CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


def refused(data: object, kind: type = CompletionBody) -> ApiError:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    with pytest.raises(ApiError) as caught:
        read_body(raw, kind)
    assert caught.value.status == 400
    return caught.value


def test_a_body_is_read_with_its_defaults() -> None:
    body = read_body(
        b'{"prompt": "Hello", "seed": -1, "stop": null, "temperature": 0}', CompletionBody
    )
    assert (body.prompt, body.seed, body.stop, body.max_tokens) == ("Hello", -1, [], 16)
    assert body.temperature == 0.0
    assert read_body(json.dumps(CHAT).encode(), ChatBody).max_tokens is None


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [1, 2], [[1, 2], [3]]])
def test_prompts_are_texts_or_token_ids(prompt: object) -> None:
    assert read_body(json.dumps({"prompt": prompt}).encode(), CompletionBody).prompt == prompt


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "not valid JSON"),
        (b"[1]", "list; a JSON object is needed"),
        (b'{"prompt": "\\ud800"}', "not valid JSON"),
        (b'{"prompt": "\xff"}', "not valid JSON"),
        (b'{"prompt": NaN}', "not valid JSON"),
        (b"[" * 100_000, "recursion limit"),
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes, told: str) -> None:
    assert told in str(refused(data))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 2**63),
        ("seed", "1"),
        ("seed", 1.5),
        ("n", 0),
        ("n", 17),
        ("n", True),
        ("temperature", "hot"),
        ("logprobs", 21),
        ("logit_bias", [1]),
        ("logit_bias", {str(i): 1 for i in range(1025)}),
        ("stop", ["x"] * 17),
        ("stop", [1]),
        ("stop_token_ids", [-1]),
        ("prompt", []),
        ("prompt", [1, "a"]),
        ("prompt", {"a": 1}),
        ("stream", 1),
        pytest.param("max_tokens", 10**400, id="many digits"),
    ],
)
def test_a_field_of_the_wrong_type_or_range_is_named(field: str, value: object) -> None:
    error = refused({"prompt": "a", field: value})
    assert error.body()["error"]["param"].startswith(field)
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("stop", ["x"] * 17, "at most 16 items"),
        ("prompt", [], "at least 1 item"),
        ("prompt", 5, "valid string"),
        ("paceline", {"trce": True}, r"there is no field 'paceline\.trce'"),
    ],
)
def test_the_reason_is_that_of_the_type_which_the_value_has(
    field: str, value: object, told: str
) -> None:
    assert re.search(told, str(refused({"prompt": "a", field: value})))


@pytest.mark.parametrize(
    ("prompt", "place", "told"),
    [
        ([None] * 3, "prompt[0]", "prompt[0]=None is not accepted: input should be a valid string"),
        (["a", None, None], "prompt[1]", "valid string"),
        ([1, "a", None], "prompt[1]", "prompt[1]='a' is not accepted: input should be a valid int"),
        ([[1], [2, None], None], "prompt[1][1]", "valid integer"),
        ([1, -1, -2], "prompt[1]", "greater than or equal to 0"),
        ([[1]] * 65_537, "prompt", "at most 65536 items"),
    ],
)
def test_the_first_wrong_item_is_named(prompt: object, place: str, told: str) -> None:
    error = refused({"prompt": prompt})
    assert error.param == place
    assert told in str(error)


MANY = 2000
WRONG, KEYS = [None] * MANY, {str(i): [] for i in range(MANY)}
ONE = {"type": "function"}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (CompletionBody, {"prompt": WRONG}),
        (CompletionBody, {"prompt": [WRONG]}),
        (CompletionBody, {"prompt": [WRONG] * MANY}),
        (CompletionBody, {"prompt": "a", "stop": WRONG}),
        (CompletionBody, {"prompt": "a", "stop_token_ids": WRONG}),
        (CompletionBody, {"prompt": "a", "logit_bias": KEYS}),
        (CompletionBody, {"prompt": "a", "metadata": KEYS}),
        (CompletionBody, {"prompt": "a", "paceline": KEYS}),
        (CompletionBody, {"prompt": "a", "structured_outputs": {"choice": WRONG}}),
        (CompletionBody, {"prompt": "a", "structured_outputs": KEYS}),
        (CompletionBody, {"prompt": "a", "response_format": {"type": "text"} | KEYS}),
        (CompletionBody, {"prompt": "a", "prediction": {"type": "content", "content": WRONG}}),
        (ChatBody, {"messages": WRONG}),
        (ChatBody, CHAT | {"tools": WRONG}),
        (ChatBody, CHAT | {"tools": [{**ONE, "function": {"name": "a"} | KEYS}]}),
        (ResponsesBody, {"input": WRONG}),
        (ResponsesBody, {"input": "a", "tools": [{**ONE, "name": "a"} | KEYS]}),
        (ResponsesBody, {"input": "a", "metadata": KEYS}),
        (ResponsesBody, {"input": "a", "text": KEYS}),
        (MessagesBody, CHAT | {"max_tokens": 1, "system": WRONG}),
        (MessagesBody, CHAT | {"max_tokens": 1, "system": [KEYS]}),
        (MessagesBody, CHAT | {"max_tokens": 1, "stop_sequences": WRONG}),
        (MessagesBody, CHAT | {"max_tokens": 1, "metadata": KEYS}),
        (TokenizeBody, {"messages": WRONG}),
        (DetokenizeBody, {"tokens": WRONG}),
    ],
)
def test_no_errors_are_looked_for_after_the_first(kind: Any, values: Any) -> None:
    """Each costs time on the event loop; a union of types has one for each of them."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(values)
    assert caught.value.error_count() <= 4


def test_four_mebibytes_of_wrong_items_are_refused_soon() -> None:
    """0.01 s; with an error for each item of each type, 11 s."""
    raw = b'{"prompt": [' + b"null," * (2**22 // 5) + b"null]}"
    began = time.process_time()
    assert refused(raw).param == "prompt[0]"
    assert time.process_time() - began < 1


class Unseen:
    def __repr__(self) -> str:
        raise AssertionError


def test_of_a_long_value_only_the_beginning_is_written() -> None:
    given = {"a": [1, "b", None, {"c": []}]}
    assert shown(given) == repr(given)
    assert shown([True] * 20 + [Unseen()]) == f"{[True] * 20!r:.80}..."
    assert shown("a" * 2**20) == "'" + "a" * 79 + "..."
    place = refused({"prompt": "a", "paceline": {"a" * 2**20: 1}}).param
    assert place is not None
    assert len(place) == 100


def test_numbers_that_are_infinite_are_refused() -> None:
    error = refused(b'{"prompt": "a", "top_p": 1e999}')
    assert error.body()["error"]["param"] == "top_p"


def test_an_unknown_field_is_refused_with_the_nearest_known_one() -> None:
    error = refused({"prompt": "a", "temprature": 1})
    assert error.body()["error"] == {
        "message": "there is no field 'temprature'; did you mean temperature?",
        "type": "invalid_request_error",
        "param": "temprature",
        "code": "unknown_parameter",
    }
    error = refused({"prompt": "a", "stream_options": {"usage": True}})
    assert error.body()["error"]["param"] == "stream_options.usage"


FUNCTION = {"name": "a", "description": None, "parameters": None, "strict": None}
SCHEMA = {"name": "a", "schema": {"type": ["null"], "default": None}, "description": None}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ChatBody, {"stream": True, "stream_options": {"include_usage": None}}),
        (ChatBody, {"paceline": {"trace": None, "draft": None}}),
        (ChatBody, {"prediction": {"type": "content", "content": "a"}, "n": None}),
        (ChatBody, {"tools": [{"type": "function", "function": FUNCTION}]}),
        (ChatBody, {"response_format": {"type": "text", "json_schema": None}}),
        (ChatBody, {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}),
        (ChatBody, {"structured_outputs": {"json": None, "regex": "a"}}),
        (MessagesBody, {"max_tokens": 1, "tool_choice": {"type": "auto", "name": None}}),
        (MessagesBody, {"max_tokens": 1, "metadata": {"user_id": None}}),
    ],
)
def test_null_is_the_same_as_leaving_a_field_out(kind: Any, values: Any) -> None:
    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(each) for each in value]
        if not isinstance(value, dict):
            return value
        return {k: v if k == "schema" else without(v) for k, v in value.items() if v is not None}

    body = read_body(json.dumps(CHAT | values).encode(), kind)
    assert body == read_body(json.dumps(CHAT | without(values)).encode(), kind)


def test_null_within_a_schema_stays() -> None:
    asked = {"type": "json_schema", "json_schema": SCHEMA}
    body = read_body(json.dumps(CHAT | {"response_format": asked}).encode(), ChatBody)
    assert body.response_format.json_schema.schema_ == SCHEMA["schema"]


@pytest.mark.parametrize("stream", [{}, {"stream": False}, {"stream": None}])
@pytest.mark.parametrize("kind", [CompletionBody, ChatBody, ResponsesBody])
def test_options_of_a_stream_need_one(kind: Any, stream: dict[str, Any]) -> None:
    """OpenAI refuses them, too."""
    base = {CompletionBody: {"prompt": "a"}, ChatBody: CHAT, ResponsesBody: {"input": "a"}}[kind]
    for options in ({"include_obfuscation": True}, {}):
        error = refused(base | stream | {"stream_options": options}, kind)
        assert error.param == "stream_options"
        assert "stream: true" in str(error)
        read_body(json.dumps(base | {"stream": True, "stream_options": options}).encode(), kind)
    read_body(json.dumps(base | stream | {"stream_options": None}).encode(), kind)


@pytest.mark.parametrize("field", UNSUPPORTED)
@pytest.mark.parametrize("kind", [CompletionBody, ChatBody])
def test_what_is_not_supported_says_so_and_its_neutral_values_are_accepted(field, kind) -> None:
    base = {"prompt": "a"} if kind is CompletionBody else CHAT
    error = refused(base | {field: ["something"]}, kind)
    assert error.body()["error"]["code"] == "unsupported_parameter"
    assert error.body()["error"]["param"] == field
    for value in (*NEUTRAL.get(field, ()), None):
        read_body(json.dumps(base | {field: value}).encode(), kind)


@pytest.mark.parametrize("field", OF_IMAGES)
def test_images_have_fields_of_their_own(field) -> None:
    error = refused({"prompt": "3", field: "1024x1024"}, ImageBody)
    assert error.body()["error"]["param"] == field
    for value in (*NEUTRAL_OF_IMAGES.get(field, ()), None):
        body = read_body(json.dumps({"prompt": 3, field: value}).encode(), ImageBody)
        assert (body.prompt, body.n) == (3, 1)
    assert refused({"prompt": "3", "n": 11}, ImageBody).body()["error"]["param"] == "n"
    assert refused({"prompt": "3", "response_format": "url"}, ImageBody)


def test_missing_fields_are_named() -> None:
    assert refused({}).body()["error"]["param"] == "prompt"
    assert refused({}, ChatBody).body()["error"]["param"] == "messages"


def test_one_is_not_true() -> None:
    """`echo: 0` is no boolean, so it is not taken for the neutral value."""
    assert refused({"prompt": "a", "echo": 0}).body()["error"]["param"] == "echo"
