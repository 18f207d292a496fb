"""Sampling options: what is accepted, and errors that name the field, the value and the range."""

import dataclasses
import math

import pytest

from models.errors import InvalidOption
from models.requests.request import Request, Sampling

REFUSED = {
    "temperature": [-0.1, 100, math.nan, math.inf],
    "top_p": [0, 1.1, -1, math.nan],
    "top_k": [-1],
    "min_p": [-0.1, 1.1, math.nan],
    "presence_penalty": [-2.1, 2.1, math.nan],
    "frequency_penalty": [-2.1, 2.1, math.nan],
    "repetition_penalty": [0, -1, 11, math.nan],
    "max_tokens": [0, -5],
    "min_tokens": [-1, 129],
    "stop": [("",), ("a", "")],
    "logprobs": [-1, 21],
    "logit_bias": [{3: math.nan}, {3: math.inf}],
}
ACCEPTED = {
    "temperature": [0, 0.5, 99],
    "top_p": [1e-9, 1],
    "top_k": [0, 1, 10**6],
    "min_p": [0, 1],
    "presence_penalty": [-2, 2],
    "frequency_penalty": [-2, 2],
    "repetition_penalty": [0.1, 10],
    "max_tokens": [1, 10**6],
    "min_tokens": [0, 128],
    "stop": [(), ("a", "bc")],
    "logprobs": [None, 0, 20],
    "logit_bias": [{}, {3: -math.inf, 4: 100.0}],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f in REFUSED for v in REFUSED[f]])
def test_refused(field, value):
    with pytest.raises(InvalidOption) as caught:
        Sampling(**{field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}={value!r} is not accepted: ")


@pytest.mark.parametrize(("field", "value"), [(f, v) for f in ACCEPTED for v in ACCEPTED[f]])
def test_accepted(field, value):
    assert getattr(Sampling(**{field: value}), field) == value


def test_every_option_is_covered_here():
    rest = {"stop_token_ids", "ignore_eos", "grammar"}
    assert {f.name for f in dataclasses.fields(Sampling)} == set(REFUSED) | rest


def test_penalties_are_noticed():
    assert not Sampling().has_penalties
    assert Sampling(presence_penalty=-1).has_penalties
    assert Sampling(frequency_penalty=0.1).has_penalties
    assert Sampling(repetition_penalty=0.9).has_penalties


def test_requests_are_values():
    one = Request(id="a", prompt=(1, 2))
    assert one == Request(id="a", prompt=(1, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.seed = 3
