"""Pools on a Ray cluster: the same tokens from any number of actors, whoever dies."""

import os
import signal
import time

import pytest

from actors.draft import DraftActor
from actors.errors import PoolFailed
from actors.members import Pool
from actors.messages import DraftAsk, DraftReply, Submission
from actors.pool import TargetPool, start_all
from actors.role import Role
from actors.target import TargetActor
from actors.team import draft_pool
from models.errors import InvalidOption, InvalidRequest, UnsupportedCheckpoint
from models.request import Request
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


def test_killed_actors_are_replaced_and_no_token_changes(config, checkpoints, plain):
    with TargetPool.start(
        config(drafter=checkpoints["draft"]),
        target_actors=2,
        draft_actors=2,
        num_cpus=CPUS,
        draft_patience=10.0,
    ) as pool:
        assert run(pool, make_requests(20)) == {f"r{i}": plain[f"r{i}"] for i in range(20)}
        accepted = pool.figures().accepted
        assert accepted > 0
        assert pool.figures().transfer_s > 0
        for role in ("draft", "target"):
            before = pool.pids()
            assert run(pool, make_requests(60), disturb=killer(role)) == plain
            awaited(pool, lambda before=before: len(pool.pids()) == 4 and pool.pids() != before)
        assert pool.describe()["draft_actors"] == 2


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
    monkeypatch.setattr("actors.pool.IDLE_S", 0.5)
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


def test_a_cluster_that_is_too_small_is_told(config):
    role = Role(name="target", num_cpus=64, place_s=0.5)
    with pytest.raises(PoolFailed, match="64 CPU of 4"):
        Pool(role, TargetActor, lambda: (config(),)).start()


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


class Poisoned(TargetActor):
    """Dies of one request."""

    def submit(self, submissions: list[Submission]) -> None:
        if any(s.request.id == "poison" for s in submissions):
            os.kill(os.getpid(), signal.SIGKILL)
        super().submit(submissions)


@pytest.mark.slow
def test_a_request_that_kills_takes_no_neighbours_along(config, plain):
    targets = Pool(Role(name="target", num_cpus=CPUS, concurrency=4), Poisoned, lambda: (config(),))
    targets.start()
    with TargetPool(config(), targets) as pool:
        pool.submit([*make_requests(2), Request(id="poison", prompt=(1,)), *make_requests(9)[2:]])
        results = []
        while pool.num_unfinished:
            results += pool.take()
    by_id = {r.id: r for r in results}
    assert len(results) == len(by_id) == 10
    poison = by_id.pop("poison")
    assert "target actors failed while they ran this request" in poison.error
    assert "the last 2 of them with no other request: its process died" in poison.error
    assert poison.retryable
    assert {i: r.tokens for i, r in by_id.items()} == {f"r{i}": plain[f"r{i}"] for i in range(9)}
