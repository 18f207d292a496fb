"""A student's training step: exact resumption, workers that change nothing, order and starts."""

import json
import shutil
from operator import attrgetter

import numpy as np
import pytest
import torch

from models.errors import UnsupportedCheckpoint
from models.students.kind import starts_of
from models.training.checkpoint import states
from models.training.engines.worker import Worker
from models.training.losses import divergence
from models.training.order import records_of, share
from models.training.schedule import average_weight, rate_at
from models.training.state import load_state, save_state
from tests.models.students.tables import EQUAL, training_of

AGREED = {"seed": 0, "records": "abc"}


def make(**values):
    return training_of(EQUAL, steps=12, batch=16, count=40, **values)


def losses(training, count):
    return [training.step()["loss"] for _ in range(count)]


@pytest.fixture(scope="module")
def undisturbed():
    training = make()
    return losses(training, 12), training


def test_resumed_training_is_the_undisturbed_one_to_the_bit(tmp_path, undisturbed):
    first = make()
    assert losses(first, 7) == undisturbed[0][:7]
    save_state(tmp_path, first, AGREED)
    second = make()
    load_state(states(tmp_path)[-1], second, AGREED)
    assert losses(second, 5) == undisturbed[0][7:]
    for part in ("kind.model", "average"):
        found, wanted = (attrgetter(part)(training) for training in (second, undisturbed[1]))
        for a, b in zip(found.parameters(), wanted.parameters(), strict=True):
            assert torch.equal(a, b)


def test_gradients_of_workers_add_up(undisturbed):
    """Three workers of one process, one after the other: the sum over them is one worker's."""
    whole = make()
    loss = whole.gradients()["loss"]
    parts = [make(worker=Worker(rank=r, world=3)) for r in range(3)]
    assert sum(part.gradients()["loss"] for part in parts) == pytest.approx(loss, rel=1e-6)
    for weights in zip(*(t.kind.model.parameters() for t in (whole, *parts)), strict=True):
        wanted, *found = (weight.grad for weight in weights)
        torch.testing.assert_close(sum(found), wanted, atol=1e-7, rtol=1e-5)


def test_no_state_is_a_pickle(tmp_path, undisturbed):
    place = save_state(tmp_path, undisturbed[1], AGREED)
    kinds = {file.suffix for file in place.iterdir()}
    assert kinds == {".json", ".safetensors"}
    assert all(int.from_bytes(f.read_bytes()[:8], "little") < 10**6 for f in place.glob("*.safe*"))


def test_the_newest_states_are_kept_and_torn_ones_ignored(tmp_path):
    training = make()
    for _ in range(3):
        training.step()
        save_state(tmp_path, training, AGREED)
    assert [place.name for place in states(tmp_path)] == ["step-00000002", "step-00000003"]
    shutil.copytree(tmp_path / "step-00000003", tmp_path / "step-00000004.new")
    (tmp_path / "step-00000005").mkdir()
    assert states(tmp_path)[-1].name == "step-00000003"
    assert states(tmp_path / "nowhere") == []


def test_the_state_of_another_training_is_refused(tmp_path, undisturbed):
    place = save_state(tmp_path, undisturbed[1], AGREED)
    with pytest.raises(UnsupportedCheckpoint, match="of another training: records differ"):
        load_state(place, make(), {**AGREED, "records": "xyz"})
    assert json.loads((place / "state.json").read_text())["step"] == 12


def test_the_average_follows_the_weights():
    training = make()
    replay = [weight.clone() for weight in training.kind.model.parameters()]
    for step in range(5):
        training.step()
        keep = average_weight(step)
        now = training.kind.model.parameters()
        replay = [keep * a + (1 - keep) * w for a, w in zip(replay, now, strict=True)]
    for found, wanted in zip(training.average.parameters(), replay, strict=True):
        torch.testing.assert_close(found, wanted.detach(), atol=1e-6, rtol=1e-5)


def test_the_best_state_by_exam_is_chosen_and_survives_a_resumption(tmp_path):
    training = make(kept=8, rate=1e-2)
    assert training.kind.num_records == 32
    scores = [training.examine()["score"]]
    for _ in range(3):
        training.step()
        scores.append(training.examine()["score"])
    assert training.best.step == max(range(4), key=scores.__getitem__) == 3
    wanted = [weight.clone() for weight in training.average.parameters()]
    best = training.best.score
    with torch.no_grad():
        for weight in training.kind.model.parameters():
            weight.mul_(30)
    training.step()
    assert training.examine()["score"] < best
    again = make(kept=8)
    load_state(save_state(tmp_path, training, AGREED), again, AGREED)
    for chosen in (training.chosen(), again.chosen()):
        assert all(torch.equal(a, b) for a, b in zip(chosen.parameters(), wanted, strict=True))


def test_every_epoch_is_a_permutation_of_its_own():
    order = records_of(np.arange(30), num_records=10, seed=4)
    epochs = order.reshape(3, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    assert records_of(np.arange(13, 17), num_records=10, seed=4).tolist() == order[13:17].tolist()
    assert records_of(np.arange(30), num_records=10, seed=5).tolist() != order.tolist()


def test_workers_share_a_batch():
    parts = [range(10)[share(10, rank, 3)] for rank in range(3)]
    assert [list(part) for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]


def test_half_of_the_samples_begin_with_noise_alone():
    starts = starts_of(np.arange(20_000), 3, range(1, 8))
    assert (starts == 0).double().mean() == pytest.approx(0.5, abs=0.02)
    counts = torch.bincount(starts, minlength=8)[1:] / 20_000
    assert counts.tolist() == pytest.approx([0.5 / 7] * 7, abs=0.01)
    assert torch.equal(starts_of(np.arange(5, 9), 3, range(1, 8)), starts[5:9])


def test_the_divergence_is_0_for_equal_laws_and_allows_impossible_tokens():
    logits = torch.tensor([[0.0, 1.0, -torch.inf]])
    wanted = logits.log_softmax(-1)
    student = torch.tensor([[0.0, 1.0, -30.0]])
    assert divergence(wanted, student).item() == pytest.approx(0, abs=1e-6)
    p = wanted.exp()[0, :2]
    assert divergence(wanted, torch.zeros(1, 3)).item() == pytest.approx(
        (p * (p * 3).log()).sum().item(), abs=1e-6
    )


def test_the_rate_rises_and_falls_to_0():
    rates = [rate_at(step, steps=100, peak=2.0) for step in range(101)]
    assert rates[0] == pytest.approx(2 / 30)
    assert max(rates) == pytest.approx(2.0)
    assert rates[100] == 0
    assert rates == sorted(rates[:30]) + sorted(rates[30:], reverse=True)
