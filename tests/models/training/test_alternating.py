"""Two networks in turns: exact resumption of both, and workers that change nothing."""

import pytest
import torch

from models.students.methods import BY_SCORE
from models.training.alternating import AlternatingStep, step_of
from models.training.checkpoint import states
from models.training.engines.worker import Worker
from models.training.state import load_state, save_state
from models.training.step import TrainingStep
from tests.models.students.tables import EQUAL, training_of


def make(**values):
    return training_of(EQUAL, steps=6, batch=6, count=40, kept=8, method=BY_SCORE, **values)


def figures(training, count):
    return [training.step() for _ in range(count)]


def test_a_resumed_training_is_the_undisturbed_one_to_the_bit(tmp_path):
    whole = make()
    wanted = figures(whole, 6)
    assert {"loss", "second_loss", "gradient_norm"} <= set(wanted[0])
    first = make()
    assert figures(first, 3) == wanted[:3]
    first.examine()
    place = save_state(tmp_path, first, {"a": 1})
    names = {file.stem for file in place.glob("*.safetensors")}
    both = {"weights", "moments", "second-weights", "second-moments"}
    assert names == {*both, "average", "best"}
    second = make()
    load_state(states(tmp_path)[-1], second, {"a": 1})
    assert figures(second, 3) == wanted[3:]
    pairs = [(whole.average, second.average), (whole.kind.second, second.kind.second)]
    for one, other in [*pairs, (whole.kind.model, second.kind.model)]:
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


def test_workers_add_up_to_one():
    """Three workers of one process: the sums of both networks' gradients are one worker's."""

    def gradients(**values):
        training = make(**values)
        learn = training.kind.second_losses
        told = [
            training.gradients_of(
                training.others["second"].engine, lambda model, some: learn(model, some, 1)
            ),
            training.gradients(),
        ]
        networks = training.kind.second, training.kind.model
        grads = [w.grad for network in networks for w in network.parameters()]
        return [each["loss"] for each in told], grads

    (losses, wanted), parts = (
        gradients(),
        [gradients(worker=Worker(rank=rank, world=3)) for rank in range(3)],
    )
    for place, loss in enumerate(losses):
        assert sum(found[place] for found, _ in parts) == pytest.approx(loss, rel=1e-5)
    for expected, *own in zip(wanted, *(grads for _, grads in parts), strict=True):
        if expected is not None:
            torch.testing.assert_close(sum(own), expected, atol=1e-6, rtol=1e-4)


def test_the_second_network_takes_its_turns_at_a_rate_of_its_own():
    training = make()
    engine = training.others["second"].engine
    rates, step = [], engine.step

    def noted(rate):
        rates.append(rate)
        return step(rate)

    engine.step = noted
    rate = training.rate
    training.step()
    assert rates == [5 * rate] * training.kind.turns


def test_a_kind_without_a_second_network_is_trained_as_before():
    plain = training_of(EQUAL, steps=2, batch=4, count=20)
    made = step_of(plain.kind, plain.plan)
    assert type(made) is TrainingStep
    assert type(make()) is AlternatingStep
    assert made.others == {}
