"""What is kept of requests to learn from: those that may be, once they have an answer."""

from actors.manager.recorder import Recorder
from actors.messages import Row
from models.requests.request import Request, Result, Sampling


def request(name: str, *, record: bool = True) -> Request:
    sampling = Sampling(temperature=0.5)
    return Request(id=name, prompt=(1, 2), sampling=sampling, seed=7, record=record)


def result(name: str, reason: str = "stop", tokens: tuple[int, ...] = (3,)) -> Result:
    return Result(id=name, tokens=tokens, finish_reason=reason)


def test_answers_of_requests_that_may_be_recorded_are_kept_until_they_are_taken() -> None:
    recorder = Recorder()
    recorder.began([request("a"), request("b"), request("secret", record=False)])
    for name in ("a", "secret"):
        recorder.ended(result(name))
    assert recorder.take() == (Row(prompt=(1, 2), tokens=(3,), seed=7, temperature=0.5),)
    assert recorder.take() == ()
    recorder.ended(result("b", "length", (4, 5)))
    assert [row.tokens for row in recorder.take()] == [(4, 5)]


def test_nothing_is_kept_of_what_failed_or_was_cancelled() -> None:
    recorder = Recorder()
    recorder.began([request(name) for name in "abcd"])
    recorder.cancelled(["a", "unknown"])
    recorder.ended(result("a"))
    recorder.ended(result("b", "error", ()))
    recorder.ended(result("c", tokens=()))
    assert recorder.take() == ()


def test_the_oldest_rows_go_where_nobody_takes_them() -> None:
    recorder = Recorder(most_rows=2)
    recorder.began([request(name) for name in "abc"])
    for number, name in enumerate("abc"):
        recorder.ended(result(name, tokens=(number,)))
    assert [row.tokens for row in recorder.take()] == [(1,), (2,)]
