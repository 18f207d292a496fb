"""Every way of sampling in one batch, under every drafter: tokens and log-probabilities of plain.

Letters: V vocabulary.
"""

from dataclasses import fields

import numpy as np
import pytest

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.requests.request import Request, Sampling
from tests.models.guessing import Prophet
from tests.models.looping import DRAFT_MODEL, TARGET, VOCAB, loop_of, run_alone

COUNT, ROWS = 48, 6
CHOICES = {
    "temperature": (0.0, 0.6, 1.0, 1.0, 1.7),
    "top_k": (0, 0, 1, 2, 3),
    "top_p": (1.0, 1.0, 0.5, 0.9),
    "min_p": (0.0, 0.0, 0.1, 0.4),
    "presence_penalty": (0.0, 0.0, 0.7),
    "frequency_penalty": (0.0, 0.0, 0.4, -0.3),
    "repetition_penalty": (1.0, 1.0, 1.3, 0.8),
    "logit_bias": ({}, {}, {1: 1.5, 3: -2.0}, {0: float("-inf")}),
    "min_tokens": (0, 0, 3, 8),
    "stop": ((), (), ("bb", "dac")),
    "stop_token_ids": ((), (), (2,)),
    "ignore_eos": (False, False, True),
    "logprobs": (None, 0, 3),
}


def requests():
    """Random settings, each alone at first, then mixed."""
    rng, made = np.random.default_rng(11), []
    names = list(CHOICES)
    for i in range(COUNT):
        if i < len(names):
            settings = {"logprobs": 2, names[i]: CHOICES[names[i]][-1]}
        else:
            settings = {n: CHOICES[n][int(rng.integers(len(CHOICES[n])))] for n in names}
        prompt = tuple(rng.integers(0, VOCAB, int(rng.integers(1, 9))).tolist())
        sampling = Sampling(max_tokens=8 + i % 15, **settings)
        made.append(Request(id=str(i), prompt=prompt, sampling=sampling, seed=i))
    return made


def told(results):
    """All that is said of the completions, to the bit."""
    names = ("tokens", "finish_reason", "stop_text", "logprobs", "error", "exactness")
    return {r.id: tuple(getattr(r, name) for name in names) for r in results}


def prophet(width=1, **options):
    return lambda known: Prophet(known, VOCAB, **options), Shape(depth=4, width=width)


def model(width=1, of=DRAFT_MODEL, depth=4):
    return lambda _: ModelDrafter(of, rows=ROWS, capacity=160), Shape(depth=depth, width=width)


DRAFTERS = {
    "none": (lambda _: None, NOTHING),
    "lookup": (lambda _: LookupDrafter(), Shape(depth=5)),
    "chain": model(),
    "tree": model(width=3),
    "itself": model(of=TARGET),
    "its tree": model(of=TARGET, width=4, depth=3),
    "jacobi": (lambda _: JacobiDrafter("shared", Start(rule="uniform")), Shape(depth=4)),
    "half-right chains": prophet(right=0.85),
    "half-right trees": prophet(width=2, right=0.9),
    "chains that come and go": prophet(right=0.9, absent=0.3, wanders=True),
    "trees that come and go": prophet(width=2, right=0.9, absent=0.4, wanders=True),
}


@pytest.mark.usefixtures("arithmetic", "little_noise_ahead")
def test_every_request_gets_what_it_gets_alone():
    alone = run_alone(requests(), target=TARGET)
    expected, known = told(alone), {r.id: r.tokens for r in alone}
    for name, (make, shape) in DRAFTERS.items():
        loop = loop_of((lambda make=make: make(known), shape), rows=ROWS, chunk=7)
        found = told(loop.run(requests()))
        for request in requests():
            assert found[request.id] == expected[request.id], (name, request)


def test_every_setting_is_among_them():
    defaults = {f.name: f.default for f in fields(Sampling)} | {"logit_bias": {}}
    for name in CHOICES:
        used = sum(getattr(r.sampling, name) != defaults[name] for r in requests())
        assert used >= 5, name
