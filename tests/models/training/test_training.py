import pytest
import torch

from models.training.image_tokenizer import COMMITMENT, CodeUse, Step, start_codes, tokenizer_step
from tests.models.tokenizers import tiny_images as tiny

MAKERS = [tiny.grid, tiny.scales]


@pytest.mark.parametrize("make", MAKERS)
def test_a_few_steps_lower_the_error(make) -> None:
    tokenizer, pixels = make().train(), tiny.images(16)
    optimiser = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    start_codes(tokenizer.codes, tokenizer_step(tokenizer, pixels), torch.Generator())
    errors = []
    for _ in range(30):
        step = tokenizer_step(tokenizer, pixels)
        optimiser.zero_grad()
        step.loss.backward()
        optimiser.step()
        errors.append(float(step.pixel_error))
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.parametrize("make", MAKERS)
def test_the_loss_sees_what_decoding_shows(make) -> None:
    tokenizer, pixels = make(), tiny.images(4)
    step = tokenizer_step(tokenizer, pixels)
    tokens = tokenizer.encode(pixels)
    assert torch.equal(torch.sort(step.tokens).values, torch.sort(tokens.flatten()).values)
    with torch.no_grad():
        shown = tokenizer.decode(tokens)
    clamped = (shown - pixels).square().mean()
    assert step.pixel_error >= clamped - 1e-5
    assert step.vectors.shape == (tokens.numel(), 4)


@pytest.mark.parametrize("make", MAKERS)
def test_gradients_reach_every_weight(make) -> None:
    tokenizer = make()
    tokenizer_step(tokenizer, tiny.images(8)).loss.backward()
    for name, weight in tokenizer.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def test_the_codes_are_drawn_four_times_as_hard_as_the_encoder() -> None:
    tokenizer, pixels = tiny.grid(), tiny.images(2)
    step = tokenizer_step(tokenizer, pixels)
    codes = tokenizer.codebook()[step.tokens]
    distance = (codes - step.vectors).square().mean()
    expected = (1 + COMMITMENT) * distance
    torch.testing.assert_close(step.loss.detach() - step.pixel_error, expected.detach())


def test_dead_codes_move_to_vectors_and_live_ones_stay() -> None:
    codes, generator = torch.nn.Parameter(torch.zeros(4, 2)), torch.Generator().manual_seed(0)
    nothing = torch.zeros(())
    step = Step(
        loss=nothing,
        pixel_error=nothing,
        tokens=torch.tensor([0, 0, 1, 0]),
        vectors=torch.arange(2.0, 10.0).view(4, 2),
    )
    use = CodeUse(4)
    assert use.revive(codes, step, generator) == 0  # nothing is known yet
    use.observe(step.tokens)
    assert use.revive(codes, step, generator) == 2
    assert (codes[:2] == 0).all()
    assert all(any(torch.equal(code, v) for v in step.vectors) for code in codes[2:])
    assert use.revive(codes, step, generator) == 0  # they have their chance now
