"""Deaths for real: whoever dies and when, innocent requests complete with the tokens they have."""

import os
import signal
import time
from dataclasses import replace

import pytest

from actors.pool.members import Pool
from actors.pool.places.role import Role
from actors.pool.pool import TargetPool
from models.errors import UnsupportedCheckpoint
from models.requests.request import Request, Result, Sampling
from tests.actors.conftest import make_requests
from tests.actors.faulty import Broken, Poisoned, Sick, Slow

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("ray_cluster"),
]


def pool_of(actor_class: type, config, *, actors: int = 1) -> TargetPool:
    role = Role(name="target", num_cpus=0.5, concurrency=4, min_size=actors, max_size=actors)
    targets = Pool(role, actor_class, lambda: (config(),))
    targets.start()
    return TargetPool(config(), targets)


def run(pool: TargetPool, requests: list[Request], *, between=lambda: None) -> dict[str, Result]:
    """All results by id, each once; `between` is called between two looks at the pool."""
    pool.submit(requests)
    results, deadline = [], time.monotonic() + 500
    while pool.num_unfinished:
        results += pool.take(timeout_s=0.2)
        between()
        assert time.monotonic() < deadline, f"{pool.num_unfinished} requests never came"
    assert sorted(r.id for r in results) == sorted(r.id for r in requests)
    return {r.id: r for r in results}


def tokens_of(results: dict[str, Result]) -> dict[str, tuple[int, ...]]:
    assert all(r.error is None for r in results.values())
    return {i: r.tokens for i, r in results.items()}


def kill(pids) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_one_actor_killed_again_and_again(config, plain):
    """Right after it was given requests, after a while, and late; four times."""
    with pool_of(Slow, config) as pool:
        killed, delays = set(), [0.0, 0.3, 0.6, 1.0]

        def between() -> None:
            for pid in set(pool.pids().values()) - killed:
                if delays and pool._ledger.num_running > pool._ledger.num_waiting:
                    time.sleep(delays.pop(0))
                    killed.add(pid)
                    kill([pid])

        assert tokens_of(run(pool, make_requests(20), between=between)) == {
            f"r{i}": plain[f"r{i}"] for i in range(20)
        }
        assert len(killed) == 4


def test_draft_actors_that_draft_between_their_deaths_are_replaced(config, checkpoints, caplog):
    """One death is allowed; the last two come without a completion between them."""
    drafting = config(drafter=checkpoints["draft"])
    with TargetPool.start(drafting, draft_actors=1, num_cpus=0.5) as pool:
        drafts = pool._drafts
        drafts.role = replace(drafts.role, max_restarts=1)
        for death in range(4):
            name = f"draft-{death}"
            await_ready(pool, name)
            deadline = time.monotonic() + 60
            while death < 3 and not drafted(run(pool, make_requests(8))):
                assert time.monotonic() < deadline
            kill([pool.pids()[name]])
        deadline = time.monotonic() + 60
        while "draft actors died within" not in caplog.text:
            assert time.monotonic() < deadline
            pool.take(timeout_s=0.2)
        assert not drafts.members
        assert tokens_of(run(pool, make_requests(2)))


def drafted(results: dict[str, Result]) -> bool:
    return any(result.draft_tokens for result in results.values())


def await_ready(pool: TargetPool, name: str) -> None:
    deadline = time.monotonic() + 60
    while name not in pool.pids():
        assert time.monotonic() < deadline
        pool.take(timeout_s=0.2)


def test_two_actors_with_suspects_killed_at_once(config, plain):
    """Three times both are dead at one look at the pool; the second makes all their requests
    suspects, the third hits a group of suspects and its neighbour."""
    with pool_of(Slow, config, actors=2) as pool:
        killed: list[int] = []

        def between() -> None:
            pids = [pid for pid in pool.pids().values() if pid not in killed]
            loads = [pool._ledger.load(m.name) for m in pool._targets.ready]
            if len(killed) < 6 and len(pids) == 2 and all(loads):
                killed.extend(pids)
                kill(pids)
                time.sleep(1.0)  # both deaths are known at the next look

        assert tokens_of(run(pool, make_requests(40), between=between)) == {
            f"r{i}": plain[f"r{i}"] for i in range(40)
        }
        assert len(killed) == 6


def test_killed_while_starting_and_while_idle(config, plain):
    with pool_of(Slow, config) as pool:
        expected = {f"r{i}": plain[f"r{i}"] for i in range(6)}
        for _ in range(3):
            kill(pool.pids().values())  # idle; the pool has not seen it when requests come
            assert tokens_of(run(pool, make_requests(6))) == expected


def test_a_request_that_kills_takes_no_neighbours_along(config, plain):
    with pool_of(Poisoned, config) as pool:
        poison = Request(id="poison", prompt=(1,))
        by_id = run(pool, [*make_requests(2), poison, *make_requests(5)[2:]])
    result = by_id.pop("poison")
    assert "target actors failed while they ran this request" in result.error
    assert "the last 2 of them with no other request: its process died" in result.error
    assert result.retryable
    assert tokens_of(by_id) == {f"r{i}": plain[f"r{i}"] for i in range(5)}


def test_a_request_that_makes_a_pass_raise_takes_no_neighbours_along(config, plain):
    sampling = Sampling(max_tokens=20, ignore_eos=True)
    sick = Request(id="sick", prompt=(1, 2), sampling=sampling)
    with pool_of(Sick, config) as pool:
        by_id = run(pool, [*make_requests(3), sick])
    result = by_id.pop("sick")
    assert "the last 2 of them with no other request" in result.error
    assert "ValueError: singular matrix" in result.error
    assert result.retryable
    assert tokens_of(by_id) == {f"r{i}": plain[f"r{i}"] for i in range(3)}


def test_a_broken_checkpoint_is_nobodys_fault_but_its_own(config):
    told = pytest.raises(UnsupportedCheckpoint, match="not numbers")
    with pool_of(Broken, config) as pool, told:
        run(pool, make_requests(3))


def test_stops_at_once_while_its_actors_are_busy(config):
    pool = pool_of(Slow, config)
    pool.submit(make_requests(20))
    pool.take(timeout_s=0.2)
    began = time.monotonic()
    pool.stop()
    assert time.monotonic() - began < 1.0
