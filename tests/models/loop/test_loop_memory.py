"""A cache with less room than all requests need: they wait, and the youngest give way."""

import numpy as np
import pytest

from models.drafting.draft_models.draft_model import ModelDrafter
from models.memory.blocks import BLOCK
from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.decoder import Decoder
from tests.models.looping import (
    DRAFT_MODEL,
    DRAFTERS,
    alone,
    loop_of,
    request_of,
    run_alone,
    tokens_of,
)

MAX_LENGTH, SCRATCH = 60, 12
TIGHT = MAX_LENGTH + SCRATCH  # what one request may need


def long_request(number, **options):
    """Its completion is as long as it may be, so half of it is too little room."""
    options = {"length": 1 + number % 5, "max_tokens": 40, "min_tokens": 0, **options}
    return request_of(number, ignore_eos=True, stop=(), **options)


def tight_loop(drafter, **options):
    options = {"max_length": MAX_LENGTH, "scratch": SCRATCH, "entries": TIGHT, **options}
    return loop_of(drafter, **options)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_requests_that_give_way_get_the_same_tokens(drafter):
    requests = [long_request(i) for i in range(12)]
    loop = tight_loop(drafter, rows=6, entries=3 * TIGHT, chunk=7)
    assert tokens_of(loop.run(requests)) == alone(requests)
    assert loop.figures().preemptions > 0
    assert loop._cache.rooms.sum() == 0


@pytest.mark.parametrize("drafter", ["none", "chain"])
def test_the_oldest_runs_on_and_none_is_admitted_until_one_ends(drafter):
    loop = tight_loop(drafter, rows=4, entries=2 * TIGHT)
    for i in range(6):
        loop.submit(long_request(i))
    active, full = [], False  # oldest first
    while loop.num_unfinished:
        before = loop.figures().preemptions
        ended = {r.id for r in loop.step()}
        now = {s.id for s in loop._rows.running + loop._rows.reading}
        gone = set(active) - now - ended
        assert set(active[: len(active) - len(gone)]) <= now | ended  # the youngest ones
        assert not full or len(active) == 0 or now <= set(active)
        full = not ended and (full or loop.figures().preemptions > before)
        active = sorted(now, key=lambda name: loop._rows._order[name])
    assert loop.figures().preemptions > 0


def test_requests_that_just_fit_never_give_way():
    loop = tight_loop("none", rows=4, entries=4 * TIGHT)
    requests = [long_request(i) for i in range(9)]
    assert tokens_of(loop.run(requests)) == alone(requests)
    assert loop.figures().preemptions == 0


def test_one_request_at_a_time_where_there_is_room_for_one():
    loop, most = tight_loop("tree", rows=4), 0
    for i in range(4):
        loop.submit(long_request(i, length=40, max_tokens=20))
    while loop.num_unfinished:
        loop.step()
        most = max(most, len(loop._rows.running) + len(loop._rows.reading))
    assert most == 1


def test_a_cancelled_request_s_room_is_free():
    loop = tight_loop("chain", rows=2, entries=2 * TIGHT)
    for i in range(2):
        loop.submit(long_request(i))
    loop.step()
    held = loop._cache.rooms.sum()
    assert loop.cancel("r0")
    assert 0 < loop._cache.rooms.sum() < held
    loop.cancel("r1")
    assert loop._cache.rooms.sum() == 0


def test_a_drafter_without_room_drafts_for_others():
    """Its cache holds one or two of four requests; the others decode plainly meanwhile."""
    requests, drafted = [long_request(i) for i in range(8)], []
    for entries in (60, None):
        drafter = ModelDrafter(DRAFT_MODEL, rows=4, capacity=160, entries=entries)
        loop = loop_of((lambda made=drafter: made, DRAFTERS["chain"][1]), rows=4)
        assert tokens_of(loop.run(requests)) == alone(requests)
        drafted.append(loop.figures().drafted)
    assert 0 < drafted[0] < drafted[1]


@pytest.mark.usefixtures("arithmetic")
def test_a_decoder_s_blocks_are_taken_and_returned():
    config = DecoderConfig(
        architecture="LlamaForCausalLM",
        vocab_size=40,
        width=32,
        inner_width=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        context_length=4 * BLOCK,
    )
    model = Decoder.from_config(config, seed=4)
    rng = np.random.default_rng(0)
    requests = [
        request_of(
            8 * i,
            prompt=tuple(rng.integers(0, 40, 20 + 9 * i).tolist()),
            max_tokens=100,
            ignore_eos=True,
        )
        for i in range(5)
    ]
    options = {"target": model, "max_length": 3 * BLOCK, "scratch": 8}
    loop = loop_of(rows=4, entries=6 * BLOCK, **options)
    assert tokens_of(loop.run(requests)) == tokens_of(run_alone(requests, **options))
    assert loop.figures().preemptions > 0
    assert loop._cache.num_free == 6 * BLOCK
