"""Teacher actors: what they read is what this process reads, also after one was killed."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from actors.teacher import TeacherConfig
from actors.teachers import store_room, teachers
from cluster.placement.placement import Demand
from models.drafting.distil.exam import Trial
from models.drafting.distil.reading import need_of, read
from models.drafting.distil.teacher import load_teacher
from models.drafting.distil.texts import Text

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


def test_calls_to_an_actor_that_is_killed_are_answered_the_same(
    checkpoints: dict[str, str], ray_cluster: None
) -> None:
    need, target = need_of("eagle", 1), checkpoints["target"]
    texts = [
        Text(tokens=tuple((7 * i + j * j) % 60 for j in range(9 + i)), num_prompt=3)
        for i in range(6)
    ]
    expected = read(load_teacher(Path(target), (1,)), texts, need)
    config = TeacherConfig(target=target, taps=(1,), need=need, guidance=1.0, threads=1)
    none = Demand(name="trainer", count=0, each={})
    with teachers(config, actors=1, beside=none) as asked:
        (pid,) = asked.pids()
        waits = [asked.read(texts) for _ in range(8)]
        os.kill(pid, signal.SIGKILL)
        for wait in waits:
            reading = wait()
            assert np.array_equal(reading.states, expected.states)
            assert np.array_equal(reading.laws, expected.laws)
        assert asked.pids() != [pid]
        trial = Trial(target="elsewhere", texts=texts[:2], depth=2, max_tokens=4)
        draft = {file.name: file.read_bytes() for file in Path(checkpoints["draft"]).iterdir()}
        runs = asked.examine(trial, draft)
        assert set(runs) == {0, 1}
        assert all(1 <= run.figures.accepted_length <= 3 for run in runs.values())
        assert all(len(run.texts[0].tokens) == 3 + 4 for run in runs.values())
    assert store_room() > 2**20
