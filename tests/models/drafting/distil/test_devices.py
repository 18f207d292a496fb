"""Trainings of drafters on another device than the CPU: everything is there, losses are the same.

On the device of tests/models/accelerator.py, which refuses to mix devices, as CUDA does.
"""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.drafting.distil.reading import need_of, read
from models.drafting.distil.streamed import Stream
from models.drafting.distil.teacher import load_teacher
from models.drafting.distil.texts import Text, write_texts
from models.training.engines.worker import Worker
from models.training.state import load_state, save_state
from models.training.step import TrainingPlan, TrainingStep
from tests.models.drafting.distil import test_image_drafters
from tests.models.drafting.distil.test_drafter_training import build, own_texts, target
from tests.models.drafting.test_image_draft_model import SIZE, VOCAB, save

__all__ = ["own_texts", "target"]  # fixtures
CPU = torch.device("cpu")
PLAN = TrainingPlan(steps=4, batch=4, rate=1e-3, seed=1)
CASES = [("model", None), ("medusa", None), ("hydra", 30), ("eagle", None)]


def figures(make, place):
    """Of all steps and exams of a training that is resumed after half of them, and itself."""
    first = make()
    found = [first.step(), first.step(), first.examine()]
    second = make()
    load_state(save_state(place / "state", first, {}), second, {})
    found.append(second.step())
    second.kind.export(second.chosen(), place / "drafter")
    return found, second


def check(tmp_path, make, device):
    wanted, _ = figures(lambda: make(CPU), tmp_path / "cpu")
    found, training = figures(lambda: make(device), tmp_path / "accel")
    for own, other in zip(found, wanted, strict=True):
        assert own == pytest.approx(other, rel=1e-6, abs=1e-6)
    networks = [training.kind.model, training.average]
    tensors = [weight for network in networks for weight in network.parameters()]
    assert {tensor.device for tensor in [*tensors, *training.engine.moments().values()]} == {device}


@sdpa_kernel(SDPBackend.MATH)  # the only one that the other device has
@pytest.mark.parametrize(("kind", "draft_vocab"), CASES)
def test_figures_are_those_of_the_cpu(tmp_path, target, own_texts, kind, draft_vocab, accel):
    """From step 2 on with the match loss."""

    def make(device):
        worker = Worker(device=device)
        some = {"draft_vocab": draft_vocab, "match_from": 8}
        return TrainingStep(build(kind, target, own_texts, worker, **some), PLAN, worker)

    check(tmp_path, make, accel)


@sdpa_kernel(SDPBackend.MATH)
def test_figures_of_image_drafters_are_those_of_the_cpu(tmp_path, accel):
    """With guidance."""
    folder, file = save(tmp_path / "target"), tmp_path / "images.parquet"
    rows = np.random.default_rng(0).integers(0, VOCAB, (12, SIZE)).tolist()
    write_texts(file, [Text(tokens=(VOCAB + 1, *row), num_prompt=1) for row in rows])

    def make(device):
        worker = Worker(device=device)
        made = test_image_drafters.training(folder, str(file), worker=worker).kind
        return TrainingStep(made, PLAN, worker)

    check(tmp_path, make, accel)


class HereAndNow:
    """Answers at once, from a teacher on a device."""

    def __init__(self, teacher, need):
        self._teacher, self._need = teacher, need

    def read(self, texts, vocabulary=None):
        found = read(self._teacher, texts, self._need, vocabulary)
        return lambda: found


@sdpa_kernel(SDPBackend.MATH)
@pytest.mark.parametrize("kind", ["medusa", "eagle"])
def test_states_come_from_a_teacher_elsewhere(target, own_texts, kind, accel):
    """It and the training have the other device each; between them, states are arrays."""
    worker = Worker(device=accel)
    wanted = TrainingStep(build(kind, target, own_texts, worker), PLAN, worker)
    taps = wanted.kind.model.taps
    readers = HereAndNow(load_teacher(target, taps, device=accel), need_of(kind, len(taps)))
    stream = Stream(readers=readers, plan=PLAN, until=2, window=1)
    made = TrainingStep(build(kind, target, own_texts, worker, stream=stream), PLAN, worker)
    for _ in range(2):
        assert made.step()["loss"] == pytest.approx(wanted.step()["loss"], rel=1e-6)
