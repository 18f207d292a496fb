"""The tally of a manager: tokens, ends and times of the requests that pass through it."""

from actors.tally import Histogram, Tally
from models.requests.request import Result
from models.requests.update import Update
from tests.actors.conftest import make_requests

REQUESTS = make_requests(4)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def update(request_id: str, *tokens: int) -> Update:
    return Update(
        id=request_id, positions=range(len(tokens)), tokens=tokens, sources=("t",) * len(tokens)
    )


def result(request_id: str, *tokens: int, reason: str = "stop") -> Result:
    return Result(id=request_id, tokens=tokens, finish_reason=reason)


def test_tokens_and_ends_are_those_of_requests_that_ended_by_themselves() -> None:
    tally = Tally()
    tally.began(REQUESTS[:3])
    tally.rejected(REQUESTS[3:])
    tally.ended(result("r0", 1, 2))
    tally.ended(result("r1", reason="error"))
    tally.cancelled(["r2", "unknown"])
    tally.ended(result("r2", 1, 2, 3))  # too late
    counts = tally.counts
    assert counts.prompt_tokens == len(REQUESTS[0].prompt)
    assert counts.generation_tokens == 2
    assert counts.ended == {"stop": 1, "error": 1, "cancelled": 1, "rejected": 1}
    assert sum(counts.request_s.counts) == 1


def test_times_of_the_first_token_between_tokens_and_of_all() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.began(REQUESTS[:1])
    clock.now = 0.2
    tally.grew(update("r0", 1))
    clock.now = 0.8
    tally.grew(update("r0", 2, 3, 4))
    clock.now = 2.0
    tally.ended(result("r0", 1, 2, 3, 4))
    counts = tally.counts
    assert counts.first_token_s.total == 0.2
    assert abs(counts.between_tokens_s.total - 0.6) < 1e-9
    assert sum(counts.between_tokens_s.counts) == 3
    assert counts.request_s.total == 2.0


def test_a_histogram_counts_a_bound_as_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert histogram.counts == [2, 1, 1]
