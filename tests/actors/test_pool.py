"""Pools on a Ray cluster: the same tokens from any number of actors, whoever dies."""

import os
import signal
import time
from dataclasses import replace

import pytest

from actors.drafts.draft import DraftActor
from actors.errors import PoolFailed
from actors.messages import DraftAsk, DraftReply
from actors.pool.members import Pool
from actors.pool.places.role import Role
from actors.pool.pool import TargetPool
from actors.pool.start import start_all
from actors.pool.team import draft_pool
from actors.target import TargetActor
from models.errors import InvalidOption, InvalidRequest, UnsupportedCheckpoint
from models.requests.request import Request
from tests.actors.conftest import make_requests

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
CPUS = 0.5


def run(pool: TargetPool, requests: list[Request], *, disturb=None) -> dict[str, tuple[int, ...]]:
    """Tokens of all requests; each must come once. `disturb(pool)`: after the first results."""
    pool.submit(requests)
    results, deadline = [], time.monotonic() + 200
    while pool.num_unfinished:
        results += pool.take(timeout_s=5.0)
        if results and disturb is not None:
            disturb(pool)
            disturb = None
        assert time.monotonic() < deadline, f"{pool.num_unfinished} requests never came"
    assert sorted(r.id for r in results) == sorted(r.id for r in requests)
    assert not pool.take(timeout_s=0.3)
    assert all(r.finish_reason in ("stop", "length") for r in results)
    return {r.id: r.tokens for r in results}


def killer(role: str):
    """Kills an actor of the role, as the system would."""

    def kill(pool: TargetPool) -> None:
        name = next(name for name in pool.pids() if name.startswith(role))
        os.kill(pool.pids()[name], signal.SIGKILL)

    return kill


def awaited(pool: TargetPool, condition) -> None:
    """Look after the pool until it is as it should be."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        pool.take(timeout_s=0.2)
        time.sleep(0.1)


def test_two_targets_without_a_drafter(config, plain):
    with TargetPool.start(config(), target_actors=2, num_cpus=CPUS) as pool:
        assert pool.free_slots() == 16
        assert run(pool, make_requests(40)) == {f"r{i}": plain[f"r{i}"] for i in range(40)}
        assert pool.figures().tokens == sum(len(plain[f"r{i}"]) for i in range(40))
        assert pool.describe()["target_actors"] == 2
        pool.submit(make_requests(20))
        with pytest.raises(InvalidRequest, match="r3"):
            pool.submit(make_requests(20)[3:4])
        assert pool.free_slots() == 0
        pool.cancel(f"r{i}" for i in range(20))
        assert pool.num_unfinished == 0
        pool.submit([Request(id="bad", prompt=(99,)), *make_requests(1)])
        results = []
        while pool.num_unfinished:
            results += pool.take()
        assert {r.id: r.finish_reason for r in results} == {"bad": "error", "r0": "length"}


def reused(request: Request, seed: int) -> Request:
    return replace(request, id="same", seed=seed)


def test_an_id_can_be_used_again_at_once(config, plain):
    """Cancelled before, while and after it runs: the new request of its id gets its own tokens."""
    long, short = make_requests(3)[1:]
    with TargetPool.start(config(), num_cpus=CPUS) as pool:
        for i in range(40):
            pool.submit([reused(long, 5)])
            if i % 2:
                time.sleep(0.01 * (i % 9))  # not taken meanwhile: it may have ended on the actor
            pool.cancel(["same"])
            pool.submit([reused(short, short.seed)])
            results = []
            while pool.num_unfinished:
                results += pool.take(timeout_s=5.0)
            assert [(r.id, r.tokens) for r in results] == [("same", plain["r2"])]
            assert results[0].error is None


def test_a_batch_with_an_id_twice_is_refused_as_a_whole(config, plain):
    first, second = make_requests(2)
    with TargetPool.start(config(), num_cpus=CPUS) as pool:
        with pytest.raises(InvalidRequest, match="'r0' is given twice"):
            pool.submit([first, second, first])
        assert pool.num_unfinished == 0
        assert run(pool, [first, second]) == {i: plain[i] for i in ("r0", "r1")}
        pool.stop()
        with pytest.raises(PoolFailed, match="stopped"):
            pool.submit([first])


def test_killed_actors_are_replaced_and_no_token_changes(config, checkpoints, plain):
    with TargetPool.start(
        config(drafter=checkpoints["draft"]),
        target_actors=2,
        draft_actors=2,
        num_cpus=CPUS,
        draft_patience=10.0,
    ) as pool:
        assert run(pool, make_requests(20)) == {f"r{i}": plain[f"r{i}"] for i in range(20)}
        accepted, began = pool.figures().accepted, time.time()
        assert accepted > 0
        assert pool.figures().transfer_s > 0
        assert (pool.state().target_deaths, pool.state().target_died) == (0, 0.0)
        for role in ("draft", "target"):
            before = pool.pids()
            assert run(pool, make_requests(60), disturb=killer(role)) == plain
            awaited(pool, lambda before=before: len(pool.pids()) == 4 and pool.pids() != before)
        assert pool.describe()["draft_actors"] == 2
        state = pool.state()
        assert state.target_deaths > 0
        assert state.draft_deaths > 0
        assert began < state.draft_died < state.target_died < time.time()


class TroubledDraft(DraftActor):
    """Sleeps before its first answers; then answers something else."""

    num_asks = 0

    def draft(self, ask: DraftAsk) -> DraftReply:
        self.num_asks += 1
        if self.num_asks <= 3:
            time.sleep(0.5)
            return super().draft(ask)
        answers = ["no", None, {}, 1 / 0 if self.num_asks % 8 == 7 else 1]
        return answers[self.num_asks % 4]


def test_a_slow_and_wrong_draft_actor_costs_time_only(config, checkpoints, plain):
    settings = config(drafter=checkpoints["draft"])
    hired = draft_pool(settings, actors=1, rows=8, num_cpus=CPUS, num_gpus=0)
    drafts = Pool(hired.role, TroubledDraft, lambda: (settings, 8))
    role = Role(name="target", num_cpus=CPUS, concurrency=4)
    with TargetPool(settings, *start_all(settings, role, drafts, patience=1.0)) as pool:
        assert run(pool, make_requests(24)) == {f"r{i}": plain[f"r{i}"] for i in range(24)}


def test_a_pool_grows_while_requests_queue_and_shrinks_when_it_idles(config, plain, monkeypatch):
    monkeypatch.setattr("actors.pool.pool.IDLE_S", 0.5)
    with TargetPool.start(config(), max_target_actors=2, num_cpus=CPUS) as pool:
        assert len(pool.pids()) == 1
        sizes: list[int] = []
        done = run(pool, make_requests(60), disturb=lambda p: sizes.append(p._targets.size))
        assert done == plain
        assert sizes == [2]
        awaited(pool, lambda: len(pool.pids()) == 1 and len(pool._targets.members) == 1)
        assert run(pool, make_requests(4)) == {f"r{i}": plain[f"r{i}"] for i in range(4)}


def test_an_actor_that_answers_nothing_is_replaced(config, plain):
    role = Role(name="target", num_cpus=CPUS, concurrency=4, silent_s=3.0)
    targets = Pool(role, TargetActor, lambda: (config(),))
    targets.start()
    with TargetPool(config(), targets) as pool:
        stopped = pool.pids()
        for pid in stopped.values():
            os.kill(pid, signal.SIGSTOP)
        assert run(pool, make_requests(12)) == {f"r{i}": plain[f"r{i}"] for i in range(12)}
        assert pool.pids().keys().isdisjoint(stopped)


# --- what cannot start -------------------------------------------------------------------------


def test_a_checkpoint_that_is_not_there_is_told(config, tmp_path):
    with pytest.raises(UnsupportedCheckpoint, match=r"config\.json"):
        TargetPool.start(config(target=str(tmp_path)), num_cpus=CPUS)


@pytest.mark.parametrize("field", ["target_actors", "draft_actors"])
def test_numbers_are_checked(config, field):
    with pytest.raises(InvalidOption, match=field):
        TargetPool.start(config(), **{field: -1})


class Stillborn(TargetActor):
    """Dies while it starts."""

    def start(self, *arguments: object) -> dict[str, object]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


def test_actors_that_keep_dying_are_given_up():
    role = Role(name="target", num_cpus=CPUS, max_restarts=0)
    with pytest.raises(
        PoolFailed, match="1 target actors died within 600 s without completing anything"
    ):
        Pool(role, Stillborn, tuple).start()
