"""The manager's bookkeeping between ingresses, without a pool: commands stay in its queue."""

import asyncio
import queue
from dataclasses import replace

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from actors.errors import PoolFailed
from actors.manager.inbox import LEASE_S
from actors.manager.manager import Manager
from actors.messages import PoolState
from models.errors import InvalidOption
from models.loop.figures import Figures
from models.requests.request import Result
from models.requests.update import Update
from tests.actors.conftest import make_requests

REQUESTS = make_requests(6)


def update(request_id: str, token: int = 1) -> Update:
    return Update(id=request_id, positions=range(1), tokens=(token,), sources=("target",), text="a")


def result(request_id: str) -> Result:
    return Result(id=request_id, tokens=(1,), finish_reason="length")


class Pool:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.submitted: list[str] = []
        self.cancelled: list[str] = []

    def submit(self, requests) -> None:
        self.submitted += [request.id for request in requests]

    def cancel(self, ids) -> None:
        self.cancelled += ids


def obeyed(manager: Manager) -> Pool:
    """A pool that was told all that waits in the manager's queue."""
    pool = Pool()
    try:
        while True:
            manager._commands.get_nowait()(pool)
    except queue.Empty:
        return pool


def test_each_ingress_gets_its_own_news_in_one_message() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10)
        assert await manager.submit("a", REQUESTS[:2])
        assert await manager.submit("b", REQUESTS[2:3])
        assert obeyed(manager).submitted == ["r0", "r1", "r2"]
        manager._deliver([update("r0"), update("r1"), update("r2")], [result("r1")])
        news = await manager.take("a", 1.0)
        assert [u.id for u in news.updates] == ["r0", "r1"]
        assert [r.id for r in news.results] == ["r1"]
        assert [u.id for u in (await manager.take("b", 1.0)).updates] == ["r2"]
        assert not (await manager.take("a", 0.01)).updates

    asyncio.run(run())


def test_too_many_requests_are_turned_away_until_some_have_ended() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=2)
        assert await manager.submit("a", REQUESTS[:2])
        assert not await manager.submit("b", REQUESTS[2:3])
        manager._deliver([], [result("r0")])
        assert await manager.submit("b", REQUESTS[2:3])
        assert obeyed(manager).submitted == ["r0", "r1", "r2"]

    asyncio.run(run())


def test_nothing_comes_of_a_cancelled_request() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10)
        await manager.submit("a", REQUESTS[:2])
        manager._deliver([update("r0"), update("r1")], [])
        await manager.cancel("b", ["r1"])  # not its own
        await manager.cancel("a", ["r0", "unknown"])
        manager._deliver([update("r0")], [result("r0")])
        assert obeyed(manager).cancelled == ["r0"]
        news = await manager.take("a", 1.0)
        assert ([u.id for u in news.updates], news.results) == (["r1"], ())

    asyncio.run(run())


def test_a_silent_ingress_s_requests_are_cancelled_and_it_is_told() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10)
        await manager.submit("a", REQUESTS[:1])
        await manager.submit("b", [replace(REQUESTS[1], id="other")])
        manager._inboxes["a"].seen -= LEASE_S + 1
        manager._expire()
        assert obeyed(manager).cancelled == ["r0"]
        (told,) = (await manager.take("a", 1.0)).results
        assert (told.finish_reason, told.retryable) == ("error", True)
        assert not (await manager.take("b", 0.01)).results

    asyncio.run(run())


class Ingress:
    """The handle of an actor whose ping ends so; None: it does not answer."""

    def __init__(self, end: Exception | bool | None) -> None:
        self.__ray_ready__ = self
        self._end = end

    async def remote(self) -> bool:
        if self._end is None:
            await asyncio.Event().wait()
        if isinstance(self._end, Exception):
            raise self._end
        return True


LATE = ActorUnavailableError("late", None)


@pytest.mark.parametrize(
    ("end", "is_dead"),
    [
        (ActorDiedError(), True),
        (LATE, False),
        (True, False),
        (None, False),
    ],
)
def test_the_requests_of_an_ingress_end_when_ray_says_that_it_died(end, is_dead) -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10)
        await manager.submit("a", REQUESTS[:2])
        await manager.submit("b", REQUESTS[2:3])
        await manager.meet("a", Ingress(end))
        for _ in range(3):
            manager._expire()
            await asyncio.sleep(0.01)
        assert sorted(obeyed(manager).cancelled) == (["r0", "r1"] if is_dead else [])
        assert await manager.left() == (1 if is_dead else 3)

    asyncio.run(run())


def test_when_the_pool_fails_every_request_ends_and_no_other_is_taken() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10)
        with pytest.raises(PoolFailed, match="loading"):
            await manager.describe()
        await manager.submit("a", REQUESTS[:2])
        manager._fail(PoolFailed("all actors died"))
        assert [r.finish_reason for r in (await manager.take("a", 1.0)).results] == ["error"] * 2
        with pytest.raises(PoolFailed, match="all actors died"):
            await manager.submit("a", REQUESTS[2:3])
        with pytest.raises(PoolFailed, match="all actors died"):
            await manager.describe()

    asyncio.run(run())


def test_an_error_that_a_caller_causes_is_for_it_alone() -> None:
    class Failing(Pool):
        @property
        def drafter(self) -> object:
            raise OSError("no such place")

    async def run() -> None:
        manager = Manager(max_unfinished=10)
        change = asyncio.ensure_future(manager.change_drafter("x"))
        await asyncio.sleep(0)
        manager._commands.get_nowait()(Failing())
        with pytest.raises(OSError, match="no such place"):
            await change
        assert await manager.submit("a", REQUESTS[:1])

    asyncio.run(run())


def test_a_server_that_stopped_learning_keeps_nothing() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10, records=True)
        asked = [replace(each, record=True) for each in REQUESTS[:2]]
        await manager.submit("a", asked)
        manager._deliver([], [result("r0")])
        assert [row.tokens for row in await manager.take_rows()] == [result("r0").tokens]
        with pytest.raises(InvalidOption, match="its trainer changes the drafter"):
            await manager.change_drafter("lookup")
        await manager.stop_recording()
        manager._deliver([], [result("r1")])
        assert await manager.take_rows() == ()
        manager._fail(PoolFailed("all actors died"))
        with pytest.raises(PoolFailed):  # it would be changed, if there were a pool
            await manager.change_drafter("lookup")

    asyncio.run(run())


def test_a_completion_is_left_until_its_ingress_has_sent_it() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10)
        await manager.submit("a", REQUESTS[:2])
        assert await manager.left() == 2
        manager._deliver([], [result("r0"), result("r1")])
        assert await manager.left() == 2
        await manager.take("a", 0.01)
        assert await manager.left() == 2  # it has the results, and says next what it has sent
        await manager.take("a", 0.01, 1)
        assert await manager.left() == 1
        await manager.take("a", 0.01, 0)
        assert await manager.left() == 0

    asyncio.run(run())


def test_nothing_is_left_for_a_dead_ingress() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10)
        await manager.submit("a", REQUESTS[:2])
        manager._deliver([], [result("r0")])
        assert await manager.left() == 2
        manager._inboxes["a"].seen -= LEASE_S + 1
        assert await manager.left() == 0
        manager._expire()
        assert await manager.left() == 0

    asyncio.run(run())


def test_a_closed_manager_does_not_let_ingresses_wait_long() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10)
        waiting = asyncio.create_task(manager.take("a", 60.0))
        await asyncio.sleep(0)
        await manager.close()
        await asyncio.wait_for(waiting, 10)
        await asyncio.wait_for(manager.take("a", 60.0), 10)

    asyncio.run(run())


def test_requests_are_turned_away_while_no_target_starts_soon() -> None:
    async def run() -> None:
        manager = Manager(max_unfinished=10)
        manager._description = {"max_length": 8}
        manager._note("no room for 1 target actor")
        with pytest.raises(PoolFailed, match="no room for 1 target actor"):
            await manager.submit("a", REQUESTS[:1])
        with pytest.raises(PoolFailed, match="no room for 1 target actor"):
            await manager.ready()
        assert await manager.describe() == {"max_length": 8}  # it has not failed
        manager._note(None)
        await manager.ready()
        assert await manager.submit("a", REQUESTS[:1])

    asyncio.run(run())


def test_the_manager_asks_its_pool_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.manager.manager.IDLE_S", 0.0)

    class Lacking(Pool):
        num_unfinished = 0

        def take(self, timeout_s: float) -> list[Result]:
            return []

        def take_updates(self) -> list[Update]:
            return []

        def state(self) -> PoolState:
            manager._commands.put(stop)
            return PoolState(figures=Figures(), target_actors=0, draft_actors=0, lack="no room")

    def stop(pool: object) -> None:
        raise StopIteration

    async def run() -> None:
        with pytest.raises(StopIteration):
            manager._serve(Lacking(), asyncio.get_running_loop())
        await asyncio.sleep(0)
        with pytest.raises(PoolFailed, match="no room"):
            await manager.submit("a", REQUESTS[:1])

    manager = Manager(max_unfinished=10)
    asyncio.run(run())
