"""A decoder with a sliding window, trees of guesses, and rows that move when others end.

The cache has room for scratch between and behind what is committed, and the window is told from
entries' positions: a stale one shows only once the window has slid to it.
"""

from dataclasses import replace

import numpy as np
import pytest

from models.batch import chain
from models.compute.x86.kernels import compiled
from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.requests.request import Request, Sampling
from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.decoder import Decoder
from tests.models.entries import entries
from tests.models.guessing import Prophet
from tests.models.looping import loop_of, run_alone, tokens_of

VOCAB, WINDOW, ROWS, LONGEST = 40, 7, 4, 52


@pytest.fixture(scope="module")
def model(arithmetic_of_module):
    config = DecoderConfig(
        architecture="MistralForCausalLM",
        vocab_size=VOCAB,
        width=32,
        inner_width=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        context_length=2 * LONGEST,
        window=WINDOW,
    )
    return Decoder.from_config(config, seed=4)


def requests():
    """Short and long ones in turn, so that long rows move into the gaps that short ones leave."""
    rng = np.random.default_rng(2)
    lengths = [int(rng.integers(3, 9)) if i % 2 else int(rng.integers(18, 32)) for i in range(12)]
    return [
        Request(
            id=str(i),
            prompt=tuple(rng.integers(0, VOCAB, 1 + 5 * i % 17).tolist()),
            sampling=Sampling(max_tokens=length, temperature=0.8 * (i % 3)),
            seed=i,
        )
        for i, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def plain(model):
    return run_alone(requests(), target=model, max_length=LONGEST)


def prophet(width, right):
    def make(model, plain):
        return Prophet({r.id: r.tokens for r in plain}, VOCAB, right=right, seed=width)

    return make, Shape(depth=5, width=width)


DRAFTERS = {
    "none": (lambda *_: None, NOTHING),
    "lookup": (lambda *_: LookupDrafter(), Shape(depth=5)),
    "right chains": prophet(1, 1.0),
    "right trees": prophet(3, 1.0),
    "half-right trees": prophet(2, 0.8),
    "its own trees": (
        lambda model, _: ModelDrafter(model, rows=ROWS, capacity=2 * LONGEST),
        Shape(depth=4, width=3),
    ),
}


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_tokens_and_cache_are_those_of_each_request_alone(model, plain, drafter):
    make, shape = DRAFTERS[drafter]
    made = make(model, plain)
    loop = loop_of(
        (lambda: made, shape), target=model, rows=ROWS, max_length=LONGEST, scratch=16, chunk=6
    )
    moves = watch_moves(loop)
    for request in requests():
        loop.submit(request)
    results, steps = [], 0
    while loop.num_unfinished:
        results += loop.step()
        steps += 1
        if steps % 4 == 0:
            check_rows(loop, model)
    assert tokens_of(results) == tokens_of(plain)
    assert len(moves) >= 4


def watch_moves(loop):
    """Where rows were moved from and to, from now on."""
    moves, move = [], loop._cache.move

    def noted(source, destination):
        if source != destination and loop._cache.lengths[source] > WINDOW:
            moves.append((source, destination))
        move(source, destination)

    loop._cache.move = noted
    return moves


def check_rows(loop, model):
    """Every running row of the cache holds what one teacher-forced pass over its tokens gives."""
    near = 0 if compiled() else 1e-5
    for row, sequence in enumerate(loop._rows.running):
        text, once = np.array(sequence.tokens[:-1]), model.new_cache(1, 2 * LONGEST)
        if len(text):
            model.score(once, chain(0, text, wanted=np.zeros(0, dtype=np.int64)))
        assert loop._cache.lengths[row] == len(text)
        difference = (entries(loop._cache, row) - entries(once, 0, len(text))).abs()
        assert difference.numel() == 0 or float(difference.max()) <= near


def test_the_window_counts(model):
    """A control: without a window the same requests get other tokens."""
    wide = Decoder.from_config(replace(model.config, window=None), seed=4)
    found = run_alone(requests()[:4], target=wide, max_length=LONGEST)
    near = run_alone(requests()[:4], target=model, max_length=LONGEST)
    assert tokens_of(found) != tokens_of(near)
