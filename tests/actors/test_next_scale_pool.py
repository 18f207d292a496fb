"""A next-scale target in a pool: SIGKILL in the middle of its images changes no grid."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from actors.messages import Ended, Streamed
from actors.pool.members import Pool
from actors.pool.places.role import Role
from actors.pool.pool import TargetPool
from actors.target import TargetActor
from models.engine import EngineConfig, build_loop
from models.requests.request import Result
from tests.actors.test_pool import CPUS
from tests.models.targets.next_scale.test_next_scale import CLASSES, LENGTH, model_of, request_of
from tests.models.tokenizers import tiny_images

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
BATCH, COUNT = 4, 40
PAUSE_AT = 6  # the first batch has ended, the second has two of its four maps: 1 + 4 tokens
SETTINGS = [{}, {"temperature": 0.7, "top_k": 5}, {"temperature": 0}, {"frequency_penalty": 0.5}]


class Pausing(TargetActor):
    """The first of its pool stops in the middle of a batch and tells how far its images are."""

    def start(self, config: EngineConfig, told: Path) -> dict[str, object]:
        self._told = told
        return super().start(config)

    def _publish(self, streamed: list[Streamed], ended: list[Ended]) -> None:
        super()._publish(streamed, ended)
        loop = self._ready()
        if self.name == "target-0" and loop.figures().rounds == PAUSE_AT:
            running = {s.id: len(s.generated) for s in loop._rows.running}
            half = self._told.with_suffix(".half")
            half.write_text(json.dumps(running))
            half.rename(self._told)
            threading.Event().wait()


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    """A checkpoint with its tokenizer, decoded under guidance."""
    folder = tmp_path / "scales"
    model_of().save(folder, torch.float32)
    tiny_images.scales().save(folder / "tokenizer")
    return EngineConfig(target=str(folder), batch_size=BATCH, guidance=2.0, device="cpu", threads=1)


class Images:
    """The tokens that streamed, by request and position; none comes twice."""

    def __init__(self) -> None:
        self.placed: dict[str, dict[int, int]] = {}

    def add(self, updates) -> None:
        for update in updates:
            placed = self.placed.setdefault(update.id, {})
            new = dict(zip(update.positions, update.tokens, strict=True))
            assert not placed.keys() & new.keys()
            placed |= new

    def sizes(self) -> dict[str, int]:
        return {i: len(placed) for i, placed in self.placed.items() if len(placed) < LENGTH}


def take_until(pool: TargetPool, images: Images, reached) -> list[Result]:
    """Results until `reached(results)`."""
    results, deadline = [], time.monotonic() + 100
    while not reached(results):
        assert time.monotonic() < deadline, f"{pool.num_unfinished} requests never came"
        results += pool.take(timeout_s=0.2)
        images.add(pool.take_updates())
    return results


@pytest.mark.parametrize("stream", [False, True])
def test_a_killed_actor_s_unfinished_images_are_decoded_anew(config, tmp_path, stream):
    """Those that stream keep the maps that were reported, and report the others."""
    requests = [
        replace(request_of(i, i % CLASSES, **SETTINGS[i % len(SETTINGS)]), stream=stream)
        for i in range(COUNT)
    ]
    images, half = Images(), {str(i): 5 for i in range(BATCH, 2 * BATCH)}
    with torch.inference_mode():
        alone = build_loop(replace(config, batch_size=1)).run(requests)
        unguided = build_loop(replace(config, guidance=1.0)).run(requests)
    expected = {r.id: r.tokens for r in alone}
    assert {r.id: r.tokens for r in unguided} != expected
    told = tmp_path / "running.json"
    role = Role(name="target", num_cpus=CPUS, concurrency=4)
    targets = Pool(role, Pausing, lambda: (config, told))
    targets.start()
    with TargetPool(config, targets) as pool:
        pool.submit(requests)
        results = take_until(
            pool,
            images,
            lambda taken: (
                len(taken) >= BATCH and told.exists() and images.sizes() == (half if stream else {})
            ),
        )
        # It is at work on images that have begun and not ended; more wait, on it and here.
        assert json.loads(told.read_text()) == half
        assert pool.num_unfinished == COUNT - BATCH
        assert pool._ledger.load("target-0") == 2 * BATCH
        killed = psutil.Process(pool.pids()["target-0"])
        os.kill(killed.pid, signal.SIGKILL)
        results += take_until(pool, images, lambda _: pool.num_unfinished == 0)
        assert not pool.take(timeout_s=0.3)
        assert not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE
        assert set(pool.pids()) == {"target-1"}
        known = sum(half.values()) if stream else 0
        assert pool._figures["target-1"].tokens == LENGTH * (COUNT - BATCH) - known
    assert sorted(r.id for r in results) == sorted(expected)
    assert {r.id: r.tokens for r in results} == expected
    streamed = {i: tuple(p[place] for place in sorted(p)) for i, p in images.placed.items()}
    assert streamed == (expected if stream else {})
    assert {r.exactness for r in results} == {"identical"}
