"""Another drafter for requests that run: no token changes, and each drafter drafts in its time."""

from itertools import product

import numpy as np
import pytest

from models.drafting.sizing.sizing import FixedSize
from tests.models.looping import DRAFTERS, alone, loop_of, request_of, tokens_of

NAMES = ["lookup", "chain", "tree"]


def sources(loop):
    return {source for update in loop.take_updates() for source in update.sources}


@pytest.mark.parametrize(("first", "second"), list(product(NAMES, NAMES)))
def test_tokens_stay_the_same_whenever_it_changes(first, second):
    requests = [request_of(i, max_tokens=24, ignore_eos=True, stop=()) for i in range(10)]
    expected = alone(requests)
    random = np.random.default_rng(0)
    for change in random.choice(16, 6, replace=False):
        loop, results, step = loop_of(first, rows=3, chunk=7), [], 0
        for request in requests:
            loop.submit(request)
        while loop.num_unfinished:
            if step == change:
                make, shape = DRAFTERS[second]
                loop.change_drafter(make(), FixedSize(shape))
                assert not loop._rows.running
            results += loop.step()
            step += 1
        assert step > change
        assert tokens_of(results) == expected
        assert loop._cache.rooms.sum() == 0


def test_the_new_one_drafts_and_the_old_one_no_more():
    from dataclasses import replace

    loop = loop_of("chain", rows=2)
    for i in range(2):
        loop.submit(replace(request_of(i, max_tokens=60, ignore_eos=True, stop=()), stream=True))
    for _ in range(8):
        loop.step()
    assert loop.drafter.name in sources(loop)
    old, passes = loop.drafter, loop.drafter.passes
    make, shape = DRAFTERS["lookup"]
    loop.change_drafter(make(), FixedSize(shape))
    while loop.num_unfinished:
        loop.step()
    assert old.passes == passes
    found = sources(loop)
    assert loop.drafter.name in found
    assert old.name not in found


def test_requests_keep_their_order():
    loop = loop_of("lookup", rows=2)
    for i in range(5):
        loop.submit(request_of(i, max_tokens=30, ignore_eos=True, stop=()))
    loop.step()
    make, shape = DRAFTERS["tree"]
    loop.change_drafter(make(), FixedSize(shape))
    assert [s.id for s in loop._rows.waiting] == [f"r{i}" for i in range(5)]
