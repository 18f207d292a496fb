"""Urgent requests begin before those that wait, and give way after them; tokens stay the same."""

from dataclasses import replace

import pytest

from tests.models.loop.test_loop_memory import TIGHT, long_request, tight_loop
from tests.models.looping import alone, loop_of, request_of, tokens_of


def test_a_late_urgent_request_begins_before_those_that_wait() -> None:
    asked = [request_of(i, max_tokens=12, min_tokens=6) for i in range(4)]
    late = [replace(asked[2], priority=1), replace(asked[3], priority=-3)]
    loop = loop_of(rows=1)
    for request in asked[:2]:
        loop.submit(request)
    results = loop.step()  # the first is admitted
    for request in late:
        loop.submit(request)
    while loop.num_unfinished:
        results += loop.step()
    assert [result.id for result in results] == [asked[i].id for i in (0, 3, 1, 2)]
    assert tokens_of(results) == alone(asked)


@pytest.mark.parametrize("drafter", ["none", "chain"])
def test_the_least_urgent_gives_way(drafter: str) -> None:
    """The urgent one came last, and runs on; all get the tokens that they get alone."""
    asked = [long_request(i) for i in range(6)]
    asked[-1] = replace(asked[-1], priority=-1)
    loop = tight_loop(drafter, rows=6, entries=2 * TIGHT)
    results, begun = [], False
    for request in asked:
        loop.submit(request)
    while loop.num_unfinished:
        results += loop.step()
        running = {s.id for s in loop._rows.running + loop._rows.reading}
        ended = {result.id for result in results}
        assert not begun or asked[-1].id in running | ended
        begun = begun or asked[-1].id in running
    assert tokens_of(results) == alone(asked)
    assert loop.figures().preemptions > 0
