"""A target actor as a plain object: calls come and go while its thread steps."""

import threading
import time
from dataclasses import replace

import pytest
import torch

from actors import target
from actors.errors import LoopFailed
from actors.messages import Taken
from actors.target import TargetActor
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.requests.request import Request, Sampling
from tests.actors.conftest import make_requests, submissions
from tests.models.targets.next_scale.test_next_scale import model_of, request_of
from tests.models.tokenizers import tiny_images


@pytest.fixture
def actor(config):
    made = TargetActor("target-7")
    made.start(config())
    return made


def results_of(taken: Taken):
    return [each.result for each in taken.ended]


def take_all(actor: TargetActor, count: int):
    results = []
    while len(results) < count:
        results += results_of(actor.take(10.0))
    return results


def test_results_come_as_requests_end(actor, plain):
    actor.submit(submissions(make_requests(20)))
    results = take_all(actor, 20)
    assert {r.id: r.tokens for r in results} == {f"r{i}": plain[f"r{i}"] for i in range(20)}
    assert actor.take(0.0).ended == ()
    assert actor.figures().tokens == sum(len(r.tokens) for r in results)
    assert actor.take(0.0).figures == actor.figures()


def test_drafts_in_the_same_process(config, checkpoints, plain):
    made = TargetActor()
    made.start(config(drafter=checkpoints["draft"]))
    made.submit(submissions(make_requests(12)))
    assert {r.id: r.tokens for r in take_all(made, 12)} == {
        f"r{i}": plain[f"r{i}"] for i in range(12)
    }
    assert made.figures().accepted > 0


def test_a_refused_request_is_a_result_and_disturbs_no_one(actor, plain):
    long = Sampling(max_tokens=95)
    bad = [
        Request(id="empty", prompt=()),
        Request(id="foreign", prompt=(5, 64)),
        Request(id="long", prompt=(1, 2), sampling=long),
        Request(id="text", prompt=("a",)),
        Request(id="stop", prompt=(1,), sampling=Sampling(max_tokens=9, stop=("x",))),
    ]
    actor.submit(submissions([*bad, *make_requests(3)]))
    results = {r.id: r for r in take_all(actor, 8)}
    for request in bad:
        assert results[request.id].finish_reason == "error"
        assert results[request.id].error
    assert "97; at most 96" in results["long"].error
    assert results["r1"].tokens == plain["r1"]


def test_take_waits_no_longer_than_asked(actor):
    began = time.perf_counter()
    assert actor.take(0.2).ended == ()
    assert 0.2 <= time.perf_counter() - began < 2.0


def test_results_come_together_while_enough_requests_wait(actor):
    """4 rows, 12 requests of one length: as many are taken at once as leave 6, in two rounds."""
    requests = [
        replace(r, sampling=Sampling(max_tokens=9, ignore_eos=True)) for r in make_requests(12)
    ]
    actor.submit(submissions(requests))
    num_taken = len(actor.take(10.0, 60.0).ended)
    assert num_taken >= 6
    began = time.perf_counter()
    while num_taken < 12:  # now that few are left, nothing is waited for
        num_taken += len(actor.take(10.0, 60.0).ended)
    assert time.perf_counter() - began < 10.0


def test_a_result_waits_for_others_no_longer_than_asked(actor):
    slow = Sampling(max_tokens=80, ignore_eos=True)
    quick = replace(make_requests(1)[0], id="quick", sampling=Sampling(max_tokens=1))
    many = [quick, *(replace(r, sampling=slow) for r in make_requests(16))]
    actor.submit(submissions(many))
    assert [r.id for r in results_of(actor.take(10.0, 0.001))] == ["quick"]


def test_a_cancelled_request_is_not_heard_of_again(actor):
    actor.submit(submissions(make_requests(8)))
    actor.cancel([1, 8, 99])
    results = take_all(actor, 6)
    assert {r.id for r in results} == {f"r{i}" for i in range(1, 7)}
    assert actor.take(0.1).ended == ()


def streaming(requests):
    return [replace(r, stream=True) for r in requests]


def test_a_step_s_updates_come_in_one_message(actor, plain):
    """Those of all its requests; the last ones together with the result."""
    messages, publish = [], actor._publish

    def noted(streamed, ended):
        messages.append((streamed, ended))
        publish(streamed, ended)

    actor._publish = noted
    actor.submit(submissions(streaming(make_requests(3))))
    taken = []
    while sum(len(t.ended) for t in taken) < 3:
        taken.append(actor.take(10.0))
    assert max(len(t.streamed) for t in taken) >= 3
    joined = {f"r{i}": () for i in range(3)}
    for each in (s for t in taken for s in t.streamed):
        assert each.ticket == 1 + int(each.update.id[1:])
        joined[each.update.id] += each.update.tokens
    assert joined == {f"r{i}": plain[f"r{i}"] for i in range(3)}
    for streamed, ended in messages:
        assert {e.ticket for e in ended} <= {s.ticket for s in streamed}
        assert len({s.ticket for s in streamed}) == len(streamed)


def test_updates_wait_for_those_of_later_steps(actor, plain, monkeypatch):
    """All but a request's first and last ones."""
    monkeypatch.setattr(target, "STREAM_EVERY_S", 3600.0)
    actor.take(0.0)
    actor.submit(submissions(streaming(make_requests(1))))
    taken = [actor.take(10.0)]
    while not taken[-1].ended:
        taken.append(actor.take(10.0))
    assert len(taken) <= 2
    assert taken[0].streamed
    tokens = [t for each in taken for s in each.streamed for t in s.update.tokens]
    assert tuple(tokens) == plain["r0"]


def test_streams_do_not_wait_for_results_to_come_together(actor):
    slow = Sampling(max_tokens=80, ignore_eos=True)
    many = [replace(r, sampling=slow, stream=i == 0) for i, r in enumerate(make_requests(16))]
    actor.submit(submissions(many))
    began = time.perf_counter()
    assert actor.take(10.0, 60.0).streamed
    assert time.perf_counter() - began < 10.0


class Gate:
    """Lets a loop's forward passes through one by one, and notes their rows."""

    def __init__(self, loop, monkeypatch):
        self.loop, self.score = loop, loop.target.score
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.running: list[set[str]] = []
        monkeypatch.setattr(loop.target, "score", self)

    def __call__(self, *inputs, **options):
        rows = self.loop._rows
        self.running.append({s.id for s in [*rows.running, *rows.reading]})
        self.entered.release()
        assert self.go.acquire(timeout=30)
        return self.score(*inputs, **options)

    def next(self):
        """Wait until a pass has begun."""
        assert self.entered.acquire(timeout=30)


@pytest.mark.parametrize("passes", [1, 3, 6])
@pytest.mark.parametrize("drafter", ["none", "lookup"])
def test_a_cancelled_request_is_in_no_pass_of_the_next_step(config, passes, drafter, monkeypatch):
    """While its long prompt is read in chunks (1, 3), and while it decodes (6)."""
    actor = TargetActor()
    actor.start(config(prefill_chunk=8, drafter=drafter))
    gate = Gate(actor._loop, monkeypatch)
    sampling = Sampling(max_tokens=30, ignore_eos=True)
    prompt = tuple(range(36))
    long = Request(id="long", prompt=prompt, sampling=sampling, stream=True)
    other = replace(long, id="other", prompt=(1, 2), seed=3)
    actor.submit(submissions([long]))
    for number in range(passes):
        gate.next()
        if number == passes - 1:
            actor.submit(submissions([other], first=2))
            actor.cancel([1])  # while the pass runs
        gate.go.release()
    gate.next()
    assert gate.running[-1] == {"other"}
    assert actor._loop._cache.lengths.tolist()[1:] == [0, 0, 0]
    for _ in range(99):
        gate.go.release()
    taken = [actor.take(10.0)]
    while not taken[-1].ended:
        taken.append(actor.take(10.0))
    assert {s.ticket for t in taken for s in t.streamed} == {2}
    assert [e.ticket for t in taken for e in t.ended] == [2]
    assert actor._cancelled == set()


def test_an_image_cancelled_in_a_pass_over_its_map_is_in_no_later_pass(tmp_path, monkeypatch):
    """A target that decides groups of positions."""
    folder = tmp_path / "scales"
    model_of().save(folder, torch.float32)
    tiny_images.scales().save(folder / "tokenizer")
    actor = TargetActor()
    actor.start(EngineConfig(target=str(folder), batch_size=4, device="cpu", threads=1))
    gate = Gate(actor._loop, monkeypatch)
    first, second = (replace(request_of(i, i), stream=True) for i in range(2))
    actor.submit(submissions([first, second]))
    gate.next()
    actor.cancel([1])
    gate.go.release()
    gate.next()
    assert gate.running == [{"0", "1"}, {"1"}]
    assert actor._loop._cache.lengths.tolist()[1:] == [0, 0, 0]
    for _ in range(9):
        gate.go.release()
    taken = [actor.take(10.0)]
    while not taken[-1].ended:
        taken.append(actor.take(10.0))
    assert {s.ticket for t in taken for s in t.streamed} == {2}


def test_what_was_not_taken_goes_with_a_cancel(actor):
    """A result and updates that wait to be handed over when their request is cancelled."""
    actor.submit(submissions(streaming(make_requests(2))))
    while len(actor._ended) < 2:
        time.sleep(0.01)
    actor.cancel([1])
    taken = actor.take(10.0)
    assert {s.ticket for s in taken.streamed} == {2}
    assert [e.ticket for e in taken.ended] == [2]


def test_calls_from_many_threads(actor, plain):
    requests = make_requests(40)
    threads = [
        threading.Thread(
            target=actor.submit, args=(submissions(requests[i::4], first=100 * i),), daemon=True
        )
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    results = take_all(actor, 40)
    assert {r.id: r.tokens for r in results} == {r.id: plain[r.id] for r in requests}


def test_a_broken_loop_is_told_to_every_caller(actor):
    actor.submit(submissions(make_requests(8)))
    actor._do(lambda desk: 1 / 0)
    with pytest.raises(LoopFailed, match=r"target-7: .*ZeroDivisionError"):
        take_all(actor, 9)
    with pytest.raises(LoopFailed, match="ZeroDivisionError"):
        actor.submit(submissions(make_requests(1)))


def test_what_had_ended_is_handed_over_with_the_failure(actor, plain):
    actor.submit(submissions(make_requests(4)))
    while actor._loop.num_unfinished or len(actor._ended) < 4:
        time.sleep(0.01)
    actor._do(lambda desk: 1 / 0)
    while actor._failure is None:
        time.sleep(0.01)
    taken = actor.take(10.0)
    assert {r.id: r.tokens for r in results_of(taken)} == {
        f"r{i}": plain[f"r{i}"] for i in range(4)
    }
    assert isinstance(taken.failure, LoopFailed)
    with pytest.raises(LoopFailed, match="ZeroDivisionError"):
        actor.take(0.0)


def test_says_what_it_is(actor):
    told = actor.describe()
    assert told["max_length"] == 96
    assert told["threads"] == 1
    assert told["vocabulary"] == 64
    assert actor.ping() == "target-7"


def test_what_cannot_be_loaded_is_told(config, tmp_path):
    with pytest.raises(UnsupportedCheckpoint, match=r"config\.json"):
        TargetActor().start(config(target=str(tmp_path)))
