"""One holder at a time, whatever becomes of it; on the local disk and on S3."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from cluster.errors import LeaseLost, StorageError
from cluster.processes.process import Process
from cluster.storage import storage
from cluster.storage.lease import Held, Holder, hold

CONTEXT = multiprocessing.get_context("spawn")


@pytest.fixture(params=["local", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3_bucket')}/out/lease.json"
    return str(tmp_path / "out" / "lease.json")


def elsewhere(url: str, *, heard_of_s_ago: float, renew_s: float = 0.02) -> Holder:
    """A lease of a process on another machine."""
    then = time.time() - heard_of_s_ago
    process = Process(host="far", machine="another", pid=1, started=7)
    holder = Holder(
        token="theirs", process=process, since=then, renewed=then, expires_s=60, renew_s=renew_s
    )
    storage.publish(url, holder.data())
    return holder


def keep(url: str, expires_s: float, renew_s: float) -> None:
    """Hold a lease for long; runs in a process of its own."""
    with hold(url, expires_s=expires_s, renew_s=renew_s):
        time.sleep(60)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[..., BaseProcess]]:
    """Starts a process that holds the lease."""
    started: list[BaseProcess] = []

    def start(url: str, *, expires_s: float = 60, renew_s: float = 10) -> BaseProcess:
        process = CONTEXT.Process(target=keep, args=(url, expires_s, renew_s))
        process.start()
        started.append(process)
        while process.is_alive() and storage.file_size(url) is None:
            time.sleep(0.01)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_second_holder_is_told_of_the_first(url: str) -> None:
    with hold(url) as ticket:
        with pytest.raises(Held, match=f"process {os.getpid()} on host") as told, hold(url):
            pass
        assert 50 < told.value.holder.left_s <= 60
        ticket.check()
    with hold(url):
        pass
    assert storage.file_size(url) is None


def test_of_many_one_gets_it(url: str) -> None:
    elsewhere(url, heard_of_s_ago=100)
    got, missed, ready = list[str](), list[str](), threading.Barrier(6)

    def race() -> None:
        ready.wait()
        try:
            with hold(url) as ticket:
                got.append(ticket.token)
                late = time.monotonic() + 30
                while len(missed) < 5 and time.monotonic() < late:
                    time.sleep(0.05)  # the others may be slow
        except Held as error:
            missed.append(error.holder.token)

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert missed == got * 5


def test_the_lease_of_a_killed_process_is_free_at_once(
    url: str, other: Callable[..., BaseProcess]
) -> None:
    process = other(url)
    with pytest.raises(Held), hold(url):
        pass
    os.kill(process.pid or 0, signal.SIGKILL)
    while Holder.read(storage.read_bytes(url)).left_s > 0:  # the signal takes a moment
        time.sleep(0.01)
    began = time.monotonic()
    with hold(url):  # the process was not waited for: it is a zombie still
        assert time.monotonic() - began < 2


def test_a_number_used_again_is_another_process(url: str) -> None:
    mine = Process.this()
    assert not mine.has_ended
    assert mine.started is None or replace(mine, started=mine.started - 1).has_ended


def test_a_process_elsewhere_is_dead_when_it_is_not_heard_of(url: str) -> None:
    assert elsewhere(url, heard_of_s_ago=59).left_s == pytest.approx(1, abs=0.9)
    with pytest.raises(Held, match="process 1 on host far"), hold(url):
        pass
    elsewhere(url, heard_of_s_ago=61)
    with hold(url) as ticket:
        ticket.check()


def test_a_clock_that_is_behind_ends_no_living_lease(url: str) -> None:
    theirs, ended = elsewhere(url, heard_of_s_ago=600, renew_s=0.3), threading.Event()

    def renew() -> None:
        while not ended.wait(0.1):
            storage.publish(url, replace(theirs, renewed=time.time() - 600).data())

    thread = threading.Thread(target=renew)
    thread.start()
    missed = threading.Event()

    def attempt() -> None:
        with hold(url):
            missed.set()

    threading.Thread(target=attempt, daemon=True).start()
    assert not missed.wait(1.5)
    ended.set()
    thread.join()
    assert missed.wait(10)


def test_it_is_renewed(url: str) -> None:
    with hold(url, expires_s=3, renew_s=0.1) as ticket:
        first = Holder.read(storage.read_bytes(url))
        time.sleep(3.3)
        assert Holder.read(storage.read_bytes(url)).renewed > first.renewed + 0.5
        with pytest.raises(Held), hold(url):
            pass
        ticket.check()


def test_a_paused_holder_finds_that_it_lost_it(url: str, other: Callable[..., BaseProcess]) -> None:
    process = other(url, expires_s=0.5, renew_s=0.1)
    os.kill(process.pid or 0, signal.SIGSTOP)
    time.sleep(0.6)
    with hold(url) as ticket:
        os.kill(process.pid or 0, signal.SIGCONT)
        time.sleep(0.5)  # it tries to renew
        ticket.check()
        assert Holder.read(storage.read_bytes(url)).token == ticket.token


def test_a_lost_lease_is_told_and_left_alone(url: str) -> None:
    with hold(url) as ticket:
        elsewhere(url, heard_of_s_ago=0)
        with pytest.raises(LeaseLost, match=r"process 1 on host far.* took the output folder over"):
            ticket.check()
        storage.remove(url)
        with pytest.raises(LeaseLost, match="is gone"):
            ticket.check()
        elsewhere(url, heard_of_s_ago=0)
    assert Holder.read(storage.read_bytes(url)).token == "theirs"


def test_a_file_that_is_no_lease_is_named(url: str) -> None:
    storage.publish(url, b"{}")
    with pytest.raises(StorageError, match=r"lease\.json: no lease of ours"), hold(url):
        pass
