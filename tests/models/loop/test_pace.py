"""Long prompts are read in pieces that take no longer than a round of those who decode."""

import pytest

from models.loop.pace import CHUNKS, Pace
from tests.models.looping import DRAFTERS, alone, loop_of, request_of, run_alone, tokens_of

CHUNK = 100
LONG = CHUNKS * CHUNK + 1


def test_whole_chunks_where_nobody_waits_or_the_prompt_is_short():
    pace = Pace(CHUNK)
    pace.observe_round(0.01)
    pace.observe_piece(10, 0.1)
    assert pace.limit(decoding=False) == CHUNK
    assert pace.is_long(LONG)
    assert not pace.is_long(LONG - 1)


def test_a_piece_takes_about_as_long_as_a_round():
    """A pass takes 2 ms and 1 ms a token, a round 12 ms: pieces of 10 tokens."""
    pace, pieces = Pace(CHUNK), []
    for _ in range(60):
        pieces.append(pace.limit(decoding=True))
        pace.observe_piece(pieces[-1], 0.002 + 0.001 * pieces[-1])
        pace.observe_round(0.012)
    assert pieces[0] == 1  # nothing is known yet
    assert max(pieces) <= 10
    assert pieces[-1] >= 8


def test_it_follows_when_tokens_take_longer():
    pace = Pace(CHUNK)
    for per_token in (0.001, 0.01):
        for _ in range(40):
            piece = pace.limit(decoding=True)
            pace.observe_piece(piece, per_token * piece)
            pace.observe_piece(0, 1.0)  # nothing was read
            pace.observe_round(0.05)
        assert piece == pytest.approx(0.05 / per_token, abs=1)
    pace.observe_round(1e-6)
    for _ in range(40):
        pace.observe_round(1e-6)
    assert pace.limit(decoding=True) == 1


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_a_long_prompt_beside_short_ones_gets_its_tokens(drafter):
    requests = [request_of(i, length=3 + 57 * (i % 3 == 2)) for i in range(9)]
    loop = loop_of(drafter, rows=3, chunk=4)
    assert tokens_of(loop.run(requests)) == alone(requests)


def test_short_prompts_overtake_a_long_one():
    """They decode while it is being read, and it still gets its tokens."""
    requests = [request_of(0, length=1, max_tokens=60, ignore_eos=True, stop=())]
    requests += [request_of(1, length=80), *(request_of(i, length=4) for i in (2, 3, 4))]
    loop = loop_of("chain", rows=3, chunk=4, max_length=200)
    for request in requests:
        loop.submit(request)
    results = loop.run([])
    order = [r.id for r in results]
    assert max(order.index("r2"), order.index("r3"), order.index("r4")) < order.index("r1")
    assert tokens_of(results) == tokens_of(run_alone(requests, max_length=200))
