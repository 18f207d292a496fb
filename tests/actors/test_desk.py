"""Requests enter and leave by their tickets, whatever the order in which calls arrive."""

from dataclasses import replace

import pytest

from actors.desk import MAX_EARLY, Desk
from actors.messages import Submission
from models.requests.request import Request
from tests.models.looping import alone, loop_of, request_of, tokens_of


def lasting(number: int, *, seed: int) -> Request:
    made = request_of(number, max_tokens=9, ignore_eos=True, stop=(), min_tokens=0)
    return Request(id="same", prompt=made.prompt, sampling=made.sampling, seed=seed)


OLD, NEW = lasting(0, seed=5), lasting(0, seed=6)


@pytest.fixture
def desk():
    return Desk(loop_of(rows=2))


def finish(desk: Desk):
    ended = []
    while desk._loop.num_unfinished:
        ended += desk.ended(desk._loop.step())
    return ended


def submit(ticket: int, request: Request):
    return lambda desk: desk.submit([Submission(ticket=ticket, request=request)])


def cancel(ticket: int):
    return lambda desk: desk.cancel([ticket])


@pytest.mark.parametrize(
    "calls",
    [
        [submit(1, OLD), cancel(1), submit(2, NEW)],
        [submit(1, OLD), submit(2, NEW), cancel(1)],
        [cancel(1), submit(1, OLD), submit(2, NEW)],
        [cancel(1), submit(2, NEW), submit(1, OLD)],
        [submit(2, NEW), cancel(1), submit(1, OLD)],
        [submit(2, NEW), submit(1, OLD), cancel(1)],
    ],
)
@pytest.mark.parametrize("steps", [0, 2])
def test_only_the_newer_request_of_an_id_runs(desk, calls, steps):
    for call in calls:
        assert not call(desk)
        for _ in range(steps):
            assert desk.ended(desk._loop.step()) == []
    (ended,) = finish(desk)
    assert ended.ticket == 2
    assert tokens_of([ended.result]) == alone([NEW])


def test_an_id_can_be_used_again_after_its_end(desk):
    submit(1, OLD)(desk)
    assert [e.ticket for e in finish(desk)] == [1]
    cancel(1)(desk)  # too late: it changes nothing
    submit(2, NEW)(desk)
    assert [e.ticket for e in finish(desk)] == [2]


def test_a_refused_request_is_a_result(desk):
    (ended,) = submit(7, Request(id="empty", prompt=()))(desk)
    assert (ended.ticket, ended.result.finish_reason) == (7, "error")
    assert "empty" in ended.result.error
    assert not ended.result.retryable


def test_what_is_remembered_is_bounded(desk):
    desk.cancel(range(2 * MAX_EARLY))
    assert len(desk._early) == MAX_EARLY
    assert submit(2 * MAX_EARLY - 1, OLD)(desk) == []
    assert desk._loop.num_unfinished == 0


def test_a_trace_names_the_actor():
    desk = Desk(loop_of(rows=2), "target-7")
    desk.submit([Submission(ticket=1, request=replace(OLD, trace=True))])
    (ended,) = finish(desk)
    assert {span.where for span in ended.result.spans} == {"target-7"}


def test_what_more_memory_would_allow_may_be_tried_again():
    """Not what no memory would."""
    for advice, retryable in ((" set --memory to 9MiB or more", True), ("", False)):
        desk = Desk(loop_of(max_length=8))
        desk._loop._advise = lambda total, advice=advice: advice
        (ended,) = submit(1, request_of(0, length=20, max_tokens=1, min_tokens=0))(desk)
        assert (ended.result.invalid, ended.result.retryable) == (True, retryable)
