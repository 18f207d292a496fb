from pathlib import Path

import pytest
import torch

from models.training import learn as learning
from models.training.checkpoint import read_told, states
from models.training.learn import Stage, learn


def trained(
    state: Path | None, *, steps: int = 8, stop_at: int | None = None
) -> list[torch.Tensor]:
    """The weights of a tiny model after the stage, and a sum that its loss keeps."""
    torch.manual_seed(0)
    model, total = torch.nn.Linear(3, 2), torch.zeros(1)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, str]:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(4, 3, generator=generator)
        total.add_(x.sum())
        return (model(x) - x[:, :2]).square().mean(), "shown"

    stage = Stage(name="tiny", steps=steps, rate=0.05, state=state)
    told = learn(stage, model, loss, {"total": total})
    assert told["steps"] == steps
    return [weight.detach() for weight in model.parameters()] + [total]


def test_goes_on_where_it_stopped(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(learning, "SAVE_SECONDS", -1)
    whole, file = trained(None), tmp_path / "states"
    with pytest.raises(KeyboardInterrupt):
        trained(file, stop_at=3)
    assert read_told(states(file)[-1])["step"] == 3
    resumed = trained(file)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    again = trained(file, stop_at=0)  # all steps are done: none is taken
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_the_state_of_another_run_is_not_taken_up(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(learning, "SAVE_SECONDS", -1)
    file = tmp_path / "states"
    trained(file)
    fresh, other = trained(None, steps=5), trained(file, steps=5)
    assert not torch.equal(fresh[0], trained(None)[0])
    assert all(torch.equal(a, b) for a, b in zip(fresh, other, strict=True))


def test_the_rate_rises_and_falls() -> None:
    stage = Stage(name="any", steps=100, rate=2.0)
    rates = [stage.rate_at(step) for step in range(100)]
    assert max(rates) == 2.0
    assert rates.index(2.0) < 6
    assert rates[0] < 0.5
    assert rates[-1] < 0.03
