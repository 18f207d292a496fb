"""An actor that Ray does not place though it could is asked for anew; no other one is."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from actors.pool.members import Pool
from actors.pool.places import unplaced
from actors.pool.places.role import Role
from actors.pool.places.unplaced import Seen, Unplaced, Waiting
from cluster.placement.placement import alive_nodes
from tests.actors.test_placing import CPUS, Idle, idlers

SLOW_S = 4.0
WITHIN_S = 60.0


class Slow(Idle):
    """Its process is there long before it can be called."""

    def __init__(self, name: str) -> None:
        time.sleep(SLOW_S)
        super().__init__(name)


def nothing() -> None:
    """A task that leaves an idle process."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unplaced, "PATIENCE_S", 1.0)
    monkeypatch.setattr(unplaced, "LOOK_EVERY_S", 0.5)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """What each look has shown."""
    found: list[Seen] = []
    look = unplaced.look

    def noted(role: Role, waiting: dict[str, Waiting]) -> Seen:
        found.append(look(role, waiting))
        return found[-1]

    monkeypatch.setattr(unplaced, "look", noted)
    return found


def poll(pool: Pool, until: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not until():
        assert time.monotonic() < deadline, pool.members
        pool.poll()
        time.sleep(0.05)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "impatient")
def test_an_actor_that_starts_slowly_is_left_alone(looks: list[Seen]) -> None:
    ray.get(ray.remote(nothing).remote())  # an idle process: the first one may take long to start
    pool = idlers(Slow)
    pool.start()
    assert list(pool.members) == ["target-0"]
    assert looks
    assert set(looks) == {Seen()}
    pool.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "impatient")
def test_actors_whose_room_others_use_wait_for_it(looks: list[Seen]) -> None:
    holder, pool = idlers(num_cpus=CPUS), idlers(num_cpus=2)
    holder.start()
    poll(pool, lambda: any(seen.suspected for seen in looks))
    poll(pool, lambda: not pool._unplaced._searches)
    poll(holder, lambda: holder.awake)
    assert list(holder.members) == list(pool.members) == ["target-0"]
    holder.stop()
    poll(pool, lambda: pool.ready)
    assert list(pool.members) == ["target-0"]
    pool.stop()


@pytest.mark.ray
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.usefixtures("ray_cluster", "impatient")
def test_an_actor_that_has_room_and_no_place_is_asked_for_anew(
    ranks: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The room is a lie here, until it is there."""
    monkeypatch.setattr(unplaced, "free_nodes", alive_nodes)
    holder, pool = idlers(num_cpus=CPUS), idlers(num_cpus=2, ranks=ranks)
    holder.start()
    poll(pool, lambda: pool.members)
    (first,) = pool.members.values()
    poll(pool, lambda: "target-1" in pool.members)
    assert "target-0 found no place for" in caplog.text
    holder.stop()
    poll(pool, lambda: pool.ready)
    assert first.name not in pool.members
    pool.stop()


@pytest.mark.slow
def test_room_that_a_dead_server_gave_away_is_taken_back(tmp_path: Path) -> None:
    """Two servers (GCS) have asked a node for a process, and the first one's gets the CPU."""
    program = [sys.executable, "-m", "tests.actors.leftovers", str(tmp_path / "gcs")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines()[-1] == "target-0 is ready", done.stderr
    assert re.search("ended [12] idle processes: target actors wait for room", done.stderr)


def test_nothing_is_done_while_the_server_does_not_answer(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    def hang(*_: object) -> Seen:
        answers.wait()
        raise ConnectionError("no server")

    monkeypatch.setattr(unplaced, "look", hang)
    now = [time.monotonic()]
    monkeypatch.setattr(unplaced.time, "monotonic", lambda: now[0])
    watched = Unplaced(Role(name="target"))
    waiting = {"target-0": Waiting(object(), now[0], None)}
    for _ in range(100):
        assert watched.forgotten(waiting) == []
        now[0] += 1.0
    assert threading.active_count() < 50
    answers.set()
