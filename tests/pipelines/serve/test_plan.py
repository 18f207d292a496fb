"""From a body to requests: seeds, options, and what does not fit the target."""

from typing import Any

import pytest

from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.fields import ChatBody, CompletionBody
from pipelines.serve.bodies.messages import MessagesBody
from pipelines.serve.bodies.plan import Bounds, choice_seed, plan
from pipelines.serve.bodies.responses import ResponsesBody

BOUNDS = Bounds(max_length=100, vocabulary=50)
MESSAGES = [{"role": "user", "content": "Hello"}]


def planned(body, prompts=((1, 2, 3),)):
    return plan(body, prompts, BOUNDS, name="x")


def completion(**fields) -> CompletionBody:
    return CompletionBody(prompt="a", **fields)


def test_every_option_reaches_the_request() -> None:
    options = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "repetition_penalty": 1.2,
        "max_tokens": 20,
        "min_tokens": 2,
        "ignore_eos": True,
        "logprobs": 3,
    }
    body = completion(**options, logit_bias={"4": -100}, stop="x", stop_token_ids=[9], seed=5)
    (request,) = planned(body).requests
    assert {name: getattr(request.sampling, name) for name in options} == options
    sampling = request.sampling
    assert (sampling.logit_bias, sampling.stop, sampling.stop_token_ids) == (
        {4: -100},
        ("x",),
        (9,),
    )
    assert (request.prompt, request.seed, request.stream) == ((1, 2, 3), 5, True)


def test_the_first_choice_has_the_seed_itself_and_others_have_hashes() -> None:
    found = planned(completion(n=3, seed=5), [[1], [2]])
    seeds = [request.seed for request in found.requests]
    assert seeds == [5, choice_seed(5, 1), choice_seed(5, 2)] * 2
    assert len(set(seeds)) == 3
    assert len({request.id for request in found.requests}) == 6
    assert found.prompt_tokens == 2
    assert choice_seed(5, 1) == 79994464695861877, "part of what a seed means"


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1])
def test_any_int64_is_a_seed(seed: int) -> None:
    found = planned(completion(seed=seed, n=2))
    assert found.seed == seed
    assert all(0 <= request.seed < 2**63 for request in found.requests)


def test_a_seed_is_drawn_where_none_is_sent() -> None:
    assert planned(completion()).seed != planned(completion()).seed


def test_a_chat_may_use_what_the_context_leaves() -> None:
    assert planned(ChatBody(messages=MESSAGES)).requests[0].sampling.max_tokens == 97
    limited = ChatBody(messages=MESSAGES, max_completion_tokens=5, logprobs=True, top_logprobs=2)
    sampling = planned(limited).requests[0].sampling
    assert (sampling.max_tokens, sampling.logprobs) == (5, 2)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 98}, "max_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"50": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"stop_token_ids": [50]}, "stop_token_ids"),
    ],
)
def test_what_is_out_of_range_is_named(fields, param) -> None:
    with pytest.raises(ApiError) as caught:
        planned(completion(**fields))
    assert caught.value.body()["error"]["param"] == param


@pytest.mark.parametrize("prompt", [(), (50,), (1,) * 100])
def test_prompts_that_cannot_run_are_refused(prompt) -> None:
    with pytest.raises(ApiError, match="prompt"):
        planned(completion(), [prompt])


@pytest.mark.parametrize(
    "fields", [{"max_tokens": 5, "max_completion_tokens": 6}, {"top_logprobs": 2}]
)
def test_fields_of_a_chat_that_contradict_each_other_are_refused(fields) -> None:
    with pytest.raises(ApiError):
        planned(ChatBody(messages=MESSAGES, **fields))


@pytest.mark.parametrize(
    ("fields", "recorded"),
    [
        ({}, True),
        ({"store": False}, False),
        ({"cache_salt": "mine"}, False),
        ({"echo": True, "logprobs": 0}, False),
        ({"logit_bias": {"3": 5}}, False),
    ],
)
def test_what_a_server_that_learns_may_record(fields: dict[str, Any], recorded: bool) -> None:
    (request,) = planned(completion(**fields)).requests
    assert request.record is recorded


@pytest.mark.parametrize("fields", [{}, {"store": False}, {"cache_salt": "mine"}])
@pytest.mark.parametrize("form", [MessagesBody, ResponsesBody])
def test_other_forms_keep_requests_out_too(form: Any, fields: dict[str, Any]) -> None:
    asked = {"messages": MESSAGES, "max_tokens": 3} if form is MessagesBody else {"input": "A"}
    (request,) = planned(form(**asked, **fields).chat()).requests
    assert request.record is (not fields)


def test_what_follows_a_grammar_is_not_recorded() -> None:
    (request,) = plan(completion(), [[1]], BOUNDS, name="x", grammar='{"a": 1}').requests
    assert not request.record
