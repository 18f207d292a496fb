"""A pool of students whose actors answer at once: order, batches, cancelling, failures."""

from typing import Any

import pytest
from ray.exceptions import RayActorError

from actors.pool import students
from actors.pool.students import QUEUE_FACTOR, StudentPool
from models.errors import InvalidRequest
from models.requests.request import Request, Result

ROWS = 2
FULL = QUEUE_FACTOR * ROWS  # requests that the one actor takes


class Reference:
    def __init__(self, value: Any) -> None:
        self.value = value


class Remote:
    """`handle.name.remote(...)`."""

    def __init__(self, answer: Any) -> None:
        self.remote = lambda *arguments: Reference(answer(*arguments))


class Actor:
    """Notes its batches. `failure`: what calls of `run` end with; `pid`: of its process."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.failure: Exception | None = None
        self.pid = 1
        self.describe = Remote(lambda: {"pid": 1, "steps": 1})
        self.run = Remote(self._run)

    def _run(self, requests: list[Request]) -> Any:
        self.batches.append([request.id for request in requests])
        results = [Result(id=r.id, tokens=(1, 2), finish_reason="length") for r in requests]
        return self.failure or (self.pid, results)


class Ray:
    """What the pool needs of Ray."""

    @staticmethod
    def get(asked: Any) -> Any:
        if isinstance(asked, list):
            return [each.value for each in asked]
        if isinstance(asked.value, Exception):
            raise asked.value
        return asked.value

    @staticmethod
    def wait(calls: list[Any], num_returns: int, timeout: float) -> Any:
        return calls[:1], calls[1:]


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    monkeypatch.setattr(students, "ray", Ray)
    return Actor()


def requests(names: str, **values: Any) -> list[Request]:
    return [Request(id=name, prompt=(1,), **values) for name in names]


def taken(pool: StudentPool) -> str:
    out = ""
    while pool.num_unfinished:
        out += "".join(result.id for result in pool.take(1.0))
    return out


def test_all_requests_come_back_once_in_batches(actor: Actor) -> None:
    pool = StudentPool([actor], steps=1, batch_size=ROWS)
    pool.submit(requests("abcdefg"))
    assert actor.batches == [["a", "b"], ["c", "d"]]
    assert pool.free_slots() == 0
    assert taken(pool) == "abcdefg"
    assert actor.batches[2:] == [["e", "f"], ["g"]]
    assert (pool.figures().tokens, pool.free_slots(), pool.take(1.0)) == (14, FULL, [])
    assert pool.describe() == {"steps": 1}


def test_batches_have_one_number_of_steps(actor: Actor) -> None:
    pool = StudentPool([actor], steps=1, batch_size=8)
    pool.submit([*requests("a"), *requests("b", steps=2), *requests("cd", steps=2)])
    assert actor.batches == [["a"], ["b", "c", "d"]]
    taken(pool)
    assert pool.figures().rounds == 1 + 3 * 2


def test_an_urgent_request_begins_before_those_that_wait(actor: Actor) -> None:
    pool = StudentPool([actor], steps=1, batch_size=ROWS)
    pool.submit(requests("abcdef"))
    pool.submit(requests("u", priority=-1))
    assert taken(pool) == "abcduef"


def test_a_cancelled_request_is_not_made_and_its_id_is_free(actor: Actor) -> None:
    pool = StudentPool([actor], steps=1, batch_size=ROWS)
    pool.submit(requests("abcdef"))
    with pytest.raises(InvalidRequest):
        pool.submit(requests("xa"))
    pool.cancel(["a", "e", "unknown"])
    assert pool.num_unfinished == 4
    assert taken(pool) == "bcdf"
    pool.submit(requests("a"))
    assert taken(pool) == "a"
    assert ["e"] not in actor.batches


def test_traced_requests_say_where_they_waited_and_ran(actor: Actor) -> None:
    pool = StudentPool([actor], steps=1, batch_size=ROWS)
    pool.submit([*requests("abcd"), *requests("ef", trace=True)])
    ended: dict[str, Result] = {}
    while pool.num_unfinished:
        ended |= {result.id: result for result in pool.take(1.0)}
    assert [name for name in "abcdef" if ended[name].spans] == ["e", "f"]
    waited, ran = ended["e"].spans
    assert (waited.name, waited.where, ran.name) == ("waiting", "pool", "on an actor")
    assert ran.facts == {"actor": "student-0", "end": "length"}


def test_a_batch_whose_actor_died_ends_with_errors(actor: Actor) -> None:
    pool = StudentPool([actor], steps=1, batch_size=ROWS)
    actor.failure = RayActorError()
    pool.submit(requests("a", trace=True))
    (result,) = pool.take(1.0)
    assert (result.finish_reason, result.retryable) == ("error", True)
    assert result.spans[-1].facts["end"] == result.error
    actor.failure, actor.pid = None, 2
    pool.submit(requests("a"))
    assert taken(pool) == "a"
    assert (pool.state().target_deaths, pool.pids()) == (1, {"student-0": 2})
    assert pool.state().target_died > 0
