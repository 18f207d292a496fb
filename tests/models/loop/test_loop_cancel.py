"""Cancelling: wherever a request stands, it is gone, its row is free, its neighbours go on."""

import numpy as np
import pytest

from tests.models.looping import DRAFTERS, alone, loop_of, request_of, tokens_of


def finish(loop):
    results = []
    while loop.num_unfinished:
        results += loop.step()
    return results


def assert_untouched(results, requests, cancelled):
    left = [r for r in requests if r.id not in cancelled]
    assert tokens_of(results) == alone(left)


def lasting(number, **options):
    """A request that takes many rounds."""
    return request_of(number, max_tokens=30, ignore_eos=True, stop=(), min_tokens=0, **options)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_a_waiting_request(drafter):
    loop, requests = loop_of(drafter, rows=2), [lasting(i) for i in range(5)]
    for request in requests:
        loop.submit(request)
    loop.step()
    assert loop.cancel("r4")
    assert loop.num_unfinished == 4
    assert_untouched(finish(loop), requests, {"r4"})


@pytest.mark.parametrize("victim", ["r1", "r2", "r3"])
def test_a_request_whose_prompt_is_being_read(victim):
    """One decodes, three long prompts are read a few tokens at a time."""
    requests = [lasting(0, length=1), *(lasting(i, length=40) for i in (1, 2, 3))]
    loop = loop_of("chain", rows=4, chunk=6)
    for request in requests:
        loop.submit(request)
    for _ in range(4):
        loop.step()
    assert len(loop._rows.running) == 1
    assert len(loop._rows.reading) == 3
    assert loop.cancel(victim)
    assert_untouched(finish(loop), requests, {victim})


@pytest.mark.parametrize("victim", ["r0", "r1", "r3"])
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_a_running_request(drafter, victim):
    loop, requests = loop_of(drafter, rows=4), [lasting(i, length=3) for i in range(4)]
    for request in requests:
        loop.submit(request)
    for _ in range(3):
        loop.step()
    assert loop.cancel(victim)
    assert_untouched(finish(loop), requests, {victim})


def test_one_that_is_not_here():
    loop = loop_of()
    assert not loop.cancel("r1")
    done = loop.run([request_of(1)])
    assert not loop.cancel(done[0].id)


def test_all_of_them_leave_an_empty_loop():
    loop = loop_of("tree", rows=2)
    for i in range(4):
        loop.submit(lasting(i))
    loop.step()
    for i in range(4):
        assert loop.cancel(f"r{i}")
    assert loop.num_unfinished == 0
    assert loop.step() == []
    assert (loop._cache.lengths == 0).all()
    assert tokens_of(loop.run([lasting(1)])) == alone([lasting(1)])


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_at_any_step(drafter, seed):
    """Arrivals, ends and cancels in any order, with prompts in small chunks."""
    rng, loop = np.random.default_rng(seed), loop_of(drafter, rows=4, chunk=5)
    requests = [request_of(i) for i in range(50)]
    waiting, here, cancelled, results = list(requests), [], set(), []
    while waiting or loop.num_unfinished:
        while waiting and rng.random() < 0.5:
            here.append(waiting.pop(0))
            loop.submit(here[-1])
        if here and rng.random() < 0.25:
            victim = here[int(rng.integers(len(here)))].id
            if loop.cancel(victim):
                cancelled.add(victim)
        ended = loop.step()
        results += ended
        here = [r for r in here if r.id not in {e.id for e in ended} | cancelled]
    assert len(cancelled) > 5
    assert_untouched(results, requests, cancelled)
