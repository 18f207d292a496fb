"""What ends a request ends it at the same token, wherever drafts and rounds begin and end."""

from functools import cache

import numpy as np
import pytest
import torch

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.requests.request import Request, Sampling
from tests.models.guessing import Prophet
from tests.models.looping import loop_of, run_alone
from tests.models.tiny import TableTarget

VOCAB = 5


class Alphabet(TableTarget):
    """Says bcdeabcde...: after each letter the next one, as good as certainly."""

    def __init__(self, eos=()):
        super().__init__(VOCAB, 0, eos=eos)
        following = torch.eye(VOCAB).roll(1, dims=1)
        self.table = 50 * following.expand(VOCAB, VOCAB, VOCAB)


SAID = "bcdeabcdeabcdeabcdeabcde"
# What ends it: sampling, tokens taken, reason, stop string
CASES = {
    "stop string by the last token": ({"stop": ("cde",), "max_tokens": 4}, 4, "stop", "cde"),
    "stop string too late": ({"stop": ("dea",), "max_tokens": 4}, 4, "length", None),
    "stop string of all tokens": ({"stop": ("bcdeab",), "max_tokens": 6}, 6, "stop", "bcdeab"),
    "passed over, then another": (
        {"stop": ("cd", "ab"), "min_tokens": 5, "max_tokens": 20}, 6, "stop", "ab",
    ),
    "passed over, then the same": (
        {"stop": ("cd",), "min_tokens": 4, "max_tokens": 20}, 8, "stop", "cd",
    ),
    "passed over, then one that overlaps it": (
        {"stop": ("bcd", "de"), "min_tokens": 4, "max_tokens": 20}, 4, "stop", "de",
    ),
    "passed over, then none": (
        {"stop": ("cd",), "min_tokens": 4, "max_tokens": 7}, 7, "length", None,
    ),
    "completed by the minimum": (
        {"stop": ("cd",), "min_tokens": 3, "max_tokens": 20}, 3, "stop", "cd",
    ),
    "minimum, maximum and stop string at once": (
        {"stop": ("cd",), "min_tokens": 3, "max_tokens": 3}, 3, "stop", "cd",
    ),
    "the longer of two": ({"stop": ("d", "bcd", "cd"), "max_tokens": 9}, 3, "stop", "bcd"),
    "stop token": ({"stop_token_ids": (3,), "max_tokens": 9}, 3, "stop", None),
    "stop token as the last one": ({"stop_token_ids": (3,), "max_tokens": 3}, 3, "stop", None),
    "stop token that ends a stop string": (
        {"stop": ("cd",), "stop_token_ids": (3,), "max_tokens": 9}, 3, "stop", None,
    ),
    "eos": ({"max_tokens": 9, "ignore_eos": False}, 4, "stop", None),
    "length": ({"max_tokens": 7}, 7, "length", None),
}  # fmt: skip
LETTERS = tuple("abcde".index(letter) for letter in SAID)
DRAFTERS = {
    "none": (lambda: None, NOTHING),
    "lookup": (LookupDrafter, Shape(depth=5)),
    "itself": (lambda: ModelDrafter(Alphabet(), rows=1, capacity=99), Shape(depth=3)),
    "jacobi": (lambda: JacobiDrafter("shared", Start(rule="left")), Shape(depth=4)),
    **{
        f"{depth} right guesses": (
            lambda: Prophet({"a": LETTERS}, VOCAB),
            Shape(depth=depth),
        )
        for depth in (1, 2, 3, 7)
    },
}
TREES = {
    f"{depth} x 2 guesses": (
        lambda: Prophet({"a": LETTERS}, VOCAB, right=0.9),
        Shape(depth=depth, width=2),
    )
    for depth in (1, 3, 6)
}
RUNS = [
    *((name, rule) for name in DRAFTERS for rule in ("match", "rejection", "block")),
    *((name, "match") for name in TREES),
]


@pytest.mark.parametrize(("drafter", "rule"), RUNS)
def test_a_request_ends_where_its_text_says(drafter, rule):
    """Greedy, so that every rule gives the target's likeliest tokens. The prompt holds the text."""
    for case, (settings, count, reason, text) in CASES.items():
        sampling = Sampling(temperature=0, **{"ignore_eos": True, **settings})
        request = Request(id="a", prompt=(0, 1, 2, 3, 4, 0), sampling=sampling)
        loop = loop_of({**DRAFTERS, **TREES}[drafter], target=Alphabet(eos=(4,)), rule=rule)
        result = loop.run([request])[0]
        found = (result.tokens, result.finish_reason, result.stop_text)
        assert found == (LETTERS[:count], reason, text), case


@pytest.mark.parametrize("drafter", [*DRAFTERS, *TREES])
def test_the_context_ends_inside_a_draft(drafter):
    """A request that fills the loop's last entry, and no more scratch than a round can need."""
    make, shape = {**DRAFTERS, **TREES}[drafter]
    loop = loop_of(
        (make, shape), target=Alphabet(), rows=1, max_length=20, scratch=shape.budget + 1
    )
    for count in (14, 9, 14):
        sampling = Sampling(temperature=0, max_tokens=count)
        request = Request(id="a", prompt=(0, 1, 2, 3, 4) * 4, sampling=sampling)
        request = Request(id="a", prompt=request.prompt[-20 + count :], sampling=sampling)
        result = loop.run([request])[0]
        assert (len(result.tokens), result.finish_reason) == (count, "length")


# Random texts and stop strings


PIECES = ("a", "b", "ab", "ba", "cab")  # a stop string may begin and end within tokens
RANDOM = TableTarget(VOCAB, 7, spread=1.0, eos=(4,))


def read(tokens):
    return "".join(PIECES[t] for t in tokens)


@cache
def random_requests():
    rng, requests = np.random.default_rng(8), []
    for i in range(150):
        most = int(rng.integers(1, 12))
        stops = {"".join(rng.choice(list("abc"), rng.integers(1, 4))) for _ in range(2)}
        sampling = Sampling(
            max_tokens=most,
            min_tokens=int(rng.integers(0, most + 1)),
            stop=tuple(sorted(stops)) if rng.random() < 0.9 else (),
            ignore_eos=bool(rng.random() < 0.8),
            frequency_penalty=float(rng.choice([0, 0.3])),
        )
        requests.append(Request(id=str(i), prompt=(1, 2), sampling=sampling, seed=i))
    return requests


def ending(request, tokens):
    """The end that `tokens` must have, by reading the whole text anew after each: see `Result`.

    Of stop strings that are completed by one token, the first to begin counts.
    """
    sampling = request.sampling
    for count in range(1, len(tokens) + 1):
        before, text = len(read(tokens[: count - 1])), read(tokens[:count])
        if tokens[count - 1] == 4 and not sampling.ignore_eos:
            return count, "stop", None
        found = [
            (at, stop)
            for stop in sampling.stop
            for at in range(len(text))
            if text.startswith(stop, at) and at + len(stop) > before
        ]
        if found and count >= sampling.min_tokens:
            return count, "stop", min(found)[1]
        if count == sampling.max_tokens:
            return count, "length", None
    return None


def test_the_random_requests_end_in_every_way():
    passed_over, at_the_last = 0, 0
    for result, request in zip(plain(), random_requests(), strict=True):
        told = result.stop_text is not None
        at_the_last += told and len(result.tokens) == request.sampling.max_tokens
        free = Sampling(stop=request.sampling.stop, max_tokens=99)
        earlier = ending(Request(id="", prompt=(1,), sampling=free), result.tokens)
        passed_over += told and earlier[2] not in (None, result.stop_text)
    assert passed_over > 3
    assert at_the_last > 3


@cache
def plain():
    return run_alone(random_requests(), target=RANDOM, decode=read)


def prophet(width, right):
    known = {r.id: r.tokens for r in plain()}
    return lambda: Prophet(known, VOCAB, right=right), Shape(depth=4, width=width)


@pytest.mark.parametrize(
    ("width", "right", "rule"),
    [
        (1, 1.0, "match"),
        (1, 0.7, "match"),
        (2, 0.8, "match"),
        (1, 0.7, "rejection"),
        (1, 0.7, "block"),
    ],
)
def test_random_requests_end_where_their_text_says(width, right, rule):
    loop = loop_of(prophet(width, right), target=RANDOM, rows=5, rule=rule, decode=read)
    results = {r.id: r for r in loop.run(random_requests())}
    for request, alone in zip(random_requests(), plain(), strict=True):
        found = results[request.id]
        end = (len(found.tokens), found.finish_reason, found.stop_text)
        assert ending(request, found.tokens) == end
        if rule == "match":
            assert (found.tokens, *end[1:]) == (alone.tokens, alone.finish_reason, alone.stop_text)
