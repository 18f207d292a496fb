"""The passes of a student that has learned: the network's logits, whatever the batch."""

import pytest
import torch

from models.compute.x86 import kernels
from models.sampling.flow import FlowMap
from models.students.networks.frozen import FrozenStudent
from models.students.sample import image_noise, sample
from tests.models.students.test_network import inputs, student, teacher

__all__ = ["student", "teacher"]  # fixtures


@pytest.fixture(scope="module")
def trained(student):
    """With a noise projection and kinds that are not at their start."""
    torch.manual_seed(5)
    for weight in (student.noise_proj.weight, student.noise_proj.bias, student.kind.weight):
        weight.copy_(0.3 * torch.randn_like(weight))
    return student


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("starts", [[0] * 5, [12] * 5, [0, 3, 12, 7, 1]])
def test_logits_are_the_networks(trained, starts):
    classes, tokens, noise, guesses = inputs()
    starts, frozen = torch.tensor(starts), FrozenStudent(trained)
    wanted = trained(classes, tokens, noise, guesses, starts)
    for _ in range(2):  # the second pass finds the cache of the first one
        found = frozen(classes, tokens, noise, guesses, starts)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    some = frozen(classes[:2], tokens[:2], noise[:2], guesses[:2], starts[:2], until=5)
    torch.testing.assert_close(some, wanted[:2, :5], rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not kernels.compiled(), reason="no compiled kernels here")
def test_an_image_does_not_depend_on_the_batch(trained):
    frozen, chart = FrozenStudent(trained), FlowMap(trained.codebook)
    classes, tokens, noise, guesses = inputs()
    starts = torch.tensor([0, 3, 12, 7, 1])
    whole = frozen(classes, tokens, noise, guesses, starts)
    for i in range(5):
        one = slice(i, i + 1)
        alone = frozen(classes[one], tokens[one], noise[one], guesses[one], starts[one])
        assert torch.equal(alone, whole[one])
    noise = image_noise(range(5), 12, 4)
    images = sample(frozen, chart, classes, noise, steps=3)
    assert torch.equal(sample(frozen, chart, classes[2:3], noise[2:3], steps=3), images[2:3])
