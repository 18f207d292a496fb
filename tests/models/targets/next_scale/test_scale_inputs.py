"""The sums of maps that a target reads: the tokenizer's own, in any batch the same bits."""

import pytest
import torch

from models.compute.x86.kernels import compiled
from models.targets.next_scale.scale_inputs import ScaleInputs
from tests.models.tokenizers import tiny_images


@pytest.fixture(scope="module")
def made(arithmetic_of_module):
    tokenizer = tiny_images.scales()
    return tokenizer, ScaleInputs(tokenizer)


def _tokens(images, tokenizer):
    generator = torch.Generator().manual_seed(4)
    return torch.randint(tokenizer.vocab_size, (images, tokenizer.num_tokens), generator=generator)


def test_they_are_the_tokenizers(made) -> None:
    tokenizer, inputs = made
    tokens = _tokens(3, tokenizer)
    for scale in range(len(tokenizer.scales)):
        wanted = tokenizer.next_input(tokens, scale)
        torch.testing.assert_close(inputs(tokens, scale), wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0.1


@pytest.mark.skipif(not compiled(), reason="no compiled kernels here")
def test_an_image_has_the_same_bits_alone_and_among_others() -> None:
    tokenizer = tiny_images.scales()
    inputs, tokens = ScaleInputs(tokenizer), _tokens(5, tokenizer)
    for scale in range(1, len(tokenizer.scales)):
        together = inputs(tokens, scale)
        for image in range(5):
            assert torch.equal(inputs(tokens[image : image + 1], scale)[0], together[image])
