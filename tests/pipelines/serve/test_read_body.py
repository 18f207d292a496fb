"""From bytes to fields: what is wrong is named, and nothing is ignored."""

import json
import re

import pytest

from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.fields import (
    NEUTRAL,
    NEUTRAL_OF_IMAGES,
    OF_IMAGES,
    UNSUPPORTED,
    ChatBody,
    CompletionBody,
    ImageBody,
)
from pipelines.serve.bodies.read_body import read_body

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
