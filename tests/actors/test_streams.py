"""Streams through a pool: whoever dies, each token comes once, as in the undisturbed run."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import ray
from tokenizers import Tokenizer, decoders, models

from actors.pool.pool import TargetPool
from models.engine import build_loop
from models.errors import PacelineError
from models.requests.request import Request, Sampling
from tests.actors.conftest import VOCAB, make_requests
from tests.actors.faulty import Slow
from tests.actors.test_pool_faults import pool_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
COUNT = 8
WAYS = [("none", "match"), ("draft", "match"), ("draft", "rejection")]


@pytest.fixture(scope="module")
def spelled(checkpoints, tmp_path_factory) -> str:
    """The tiny target with a tokenizer: one letter for each token."""
    folder = tmp_path_factory.mktemp("spelled") / "target"
    shutil.copytree(checkpoints["target"], folder)
    made = Tokenizer(models.WordLevel({chr(0x41 + i): i for i in range(VOCAB)}, unk_token="A"))
    made.decoder = decoders.Fuse()
    made.save(str(folder / "tokenizer.json"))
    return str(folder)


def streaming() -> list[Request]:
    """Some with log-probabilities, some with stop strings."""
    out = []
    for i, request in enumerate(make_requests(COUNT)):
        changes = [{"logprobs": 1}, {"stop": ("B", "OPQ")}, {"min_tokens": 30}][i % 3]
        changes |= {"max_tokens": 40, "ignore_eos": True}
        out.append(replace(request, stream=True, sampling=replace(request.sampling, **changes)))
    return out


class Streams:
    """What has come of each request, joined."""

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[int, ...]] = {}
        self.text: dict[str, str] = {}
        self.sources: dict[str, tuple[str, ...]] = {}
        self.logprobs: dict[str, tuple[object, ...]] = {}

    def add(self, updates) -> None:
        for update in updates:
            before = self.tokens.get(update.id, ())
            assert update.positions == range(len(before), len(before) + len(update.tokens))
            self.tokens[update.id] = before + update.tokens
            self.text[update.id] = self.text.get(update.id, "") + update.text
            self.sources[update.id] = self.sources.get(update.id, ()) + update.sources
            said = update.logprobs or ()
            self.logprobs[update.id] = self.logprobs.get(update.id, ()) + said


def undisturbed(config):
    """Results and streams of a loop in this process."""
    loop, results, streams = build_loop(config), {}, Streams()
    for request in streaming():
        loop.submit(request)
    while loop.num_unfinished:
        results |= {r.id: r for r in loop.step()}
        streams.add(loop.take_updates())
    return results, streams


def told(result):
    return result.tokens, result.finish_reason, result.stop_text, result.logprobs, result.exactness


def run(pool: TargetPool, *, kills: int = 0, once: Callable[[], None] | None = None):
    """Results and streams; actors are killed after so many updates, `kills` times.

    `once` is called after so many updates, too.
    """
    pool.submit(streaming())
    results, streams, received, killed = {}, Streams(), 0, []
    deadline = time.monotonic() + 200
    while pool.num_unfinished:
        ended = pool.take(timeout_s=1.0)
        updates = pool.take_updates()
        streams.add(updates)
        received += len(updates)
        for result in ended:
            assert streams.tokens[result.id] == result.tokens
            results[result.id] = result
        alive = [pid for pid in pool.pids().values() if pid not in killed]
        if len(killed) < kills and alive and received > 25 * (1 + len(killed)):
            killed.append(alive[0])
            os.kill(alive[0], signal.SIGKILL)
        if once is not None and received > 25:
            once = once()
        assert time.monotonic() < deadline
    assert len(killed) == kills
    assert not pool.take_updates()
    return results, streams


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("drafter", "rule"), WAYS)
def test_a_killed_actor_s_streams_go_on_where_they_were(
    config, checkpoints, spelled, drafter, rule
):
    named = checkpoints.get(drafter, drafter)
    settings = config(target=spelled, drafter=named, verify=rule)
    results, expected = undisturbed(settings)
    with pool_of(Slow, lambda: settings, actors=2) as pool:
        found, streams = run(pool, kills=2)
    assert {i: told(r) for i, r in found.items()} == {i: told(r) for i, r in results.items()}
    assert vars(streams) == vars(expected)
    assert len(set("".join(streams.text.values()))) > 10
    moved = sum(r.target_passes < results[i].target_passes for i, r in found.items())
    assert moved >= 2, "requests continued after the tokens that had been received"


def test_a_stopped_actor_s_streams_go_on_and_its_late_answers_count_for_nothing(config, spelled):
    settings = config(target=spelled)
    results, expected = undisturbed(settings)
    before = {i: told(r) for i, r in results.items()}
    with pool_of(Slow, lambda: settings, actors=2) as pool:
        stopped, *_ = pool.pids().values()
        for left in (signal.SIGSTOP, signal.SIGCONT):  # then the same requests again
            found, streams = run(pool, once=partial(os.kill, stopped, left))
            assert {i: told(r) for i, r in found.items()} == before
            assert vars(streams) == vars(expected)
        assert pool.state().resumed >= 2
        assert stopped in pool.pids().values(), "it was not replaced"


def test_another_drafter_in_the_middle_changes_no_stream(config, checkpoints, spelled):
    settings = config(target=spelled, drafter="lookup")
    results, expected = undisturbed(settings)
    with pool_of(Slow, lambda: settings, actors=2) as pool:

        def change() -> None:
            offered = pool.drafter.offer(f"{spelled}/nowhere")
            with pytest.raises(PacelineError):
                ray.get(offered)
            pool.drafter.settle(keep=False)  # all go on with the old one
            ray.get(pool.drafter.offer(checkpoints["draft"]))
            pool.drafter.settle(keep=True)

        found, streams = run(pool, once=change)
        assert {i: r.tokens for i, r in found.items()} == {i: r.tokens for i, r in results.items()}
        assert streams.text == expected.text
        assert streams.logprobs == expected.logprobs
        sources = {source for each in streams.sources.values() for source in each}
        assert {"lookup", checkpoints["draft"]} <= sources
        assert [m.arguments[0].drafter for m in pool._targets.ready] == 2 * [checkpoints["draft"]]
        _, streams = run(pool, kills=1)
        assert "lookup" not in {s for each in streams.sources.values() for s in each}


def test_updates_come_before_the_end_and_cancel_ends_them(config):
    """Most of a request's tokens come before its result; a cancelled one is silent."""
    long = Sampling(max_tokens=60, ignore_eos=True)
    asked = [replace(r, sampling=long, stream=r.id != "r2") for r in make_requests(4)]
    early, cancelled, results = 0, False, {}
    with pool_of(Slow, config) as pool:
        pool.submit(asked)
        while pool.num_unfinished:
            results |= {r.id: r for r in pool.take(timeout_s=5.0)}
            found = [update.id for update in pool.take_updates()]
            assert "r2" not in found
            assert not (cancelled and "r0" in found)
            early += found.count("r1") if "r1" not in results else 0
            if early > 5 and not cancelled:
                pool.cancel(["r0"])
                cancelled = True
    assert early > 50
    assert set(results) == {"r1", "r2", "r3"}
