"""Trainings of every kind of drafter that are killed at any step, without Ray, as fast as can be.

CHAOS=N: so many orders of kills of all kinds; without it, one of one kind. Those of whole runs are
in tests/pipelines/distill/test_drafter_chaos.py.
"""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from models.drafting.distil.texts import Text, write_texts
from models.training.checkpoint import states
from models.training.log import EXAMS, METRICS, read_lines
from tests.models.drafting.distil import killed_training
from tests.models.drafting.distil.killed_training import EXAM_EVERY, KINDS, STEPS
from tests.models.drafting.heads.random_heads import write_target

CHAOS = int(os.environ.get("CHAOS", "0"))
SEEDS = range(max(1, CHAOS))
TRAINED = KINDS if CHAOS else ("medusa",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A target and texts."""
    root = tmp_path_factory.mktemp("given")
    chance = np.random.default_rng(0)
    texts = [
        Text(tokens=tuple(chance.integers(1, 50, size).tolist()), num_prompt=4)
        for size in chance.integers(8, 24, 15)
    ]
    write_texts(root / "texts.parquet", texts)
    return [str(write_target(root / "target")), str(root / "texts.parquet")]


def start(folder, given):
    module = killed_training.__name__
    return subprocess.Popen([sys.executable, "-m", module, str(folder), *given, *TRAINED])


def done(folder):
    """Steps of all kinds together."""
    return sum(len(read_lines(folder / kind / METRICS)) for kind in TRAINED)


def outcome(folder):
    """Losses, exams, and the last state: weights, moments, average, the best one."""
    return {
        kind: (
            [line["loss"] for line in read_lines(folder / kind / METRICS)],
            read_lines(folder / kind / EXAMS),
            {f.name: f.read_bytes() for f in states(folder / kind)[-1].iterdir()},
        )
        for kind in TRAINED
    }


@pytest.fixture(scope="module")
def undisturbed(given, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    killed_training.run(folder, *given, TRAINED)
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])
    return outcome(folder)


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_once_in_each_kind(tmp_path, given, undisturbed, seed):
    chance, kills = random.Random(seed), []
    for number in range(len(TRAINED)):
        after = number * STEPS + chance.randrange(2, STEPS - 10)
        process = start(tmp_path, given)
        while done(tmp_path) <= after:
            assert process.poll() is None, "it has ended before it was killed"
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills.append(done(tmp_path) - number * STEPS)
    assert start(tmp_path, given).wait() == 0
    print(f"seed {seed}: killed after steps {dict(zip(TRAINED, kills, strict=True))}")
    found = outcome(tmp_path)
    for kind in TRAINED:
        losses, exams, state = found[kind]
        assert len(losses) == STEPS
        assert [exam["step"] for exam in exams] == [0, *range(EXAM_EVERY, STEPS + 1, EXAM_EVERY)]
        assert "best.safetensors" in state
        assert found[kind] == undisturbed[kind], kind
