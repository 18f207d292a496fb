"""A raster target fed with vectors in place of tokens, and what its places can reach."""

from dataclasses import replace

import numpy as np
import torch

from models.batch import VECTOR, Batch, chain
from models.targets.decoder.decoder import Decoder
from models.targets.guided import GuidedTarget
from models.training.raster import RasterModel
from tests.models.training.test_raster import CONFIG, decoder, model, prompt

__all__ = ["decoder", "model"]  # fixtures
LENGTH = CONFIG.num_tokens


def fed(klass: int, vectors: torch.Tensor) -> Batch:
    """A class and then vectors [n, C]."""
    tokens = np.concatenate([[prompt(klass)], np.full(len(vectors), VECTOR)])
    inputs = torch.cat([torch.full((1, vectors.shape[1]), torch.nan), vectors])  # not read there
    return replace(chain(0, tokens), inputs=inputs)


def logits_of(target: Decoder, batch: Batch) -> torch.Tensor:
    return target.score(target.new_cache(1, 1 + LENGTH), batch).logits


def test_codes_as_vectors_are_tokens(model: RasterModel, decoder: Decoder) -> None:
    tokens = torch.randint(24, (LENGTH,), generator=torch.Generator().manual_seed(2))
    ids = np.concatenate([[prompt(1)], tokens.numpy()])
    told = logits_of(decoder, fed(1, model.model.codebook[tokens]))
    assert torch.equal(told, logits_of(decoder, chain(0, ids)))


def test_vectors_between_codes_are_read_as_in_training(model, decoder) -> None:
    vectors = torch.randn(LENGTH, 4, generator=torch.Generator().manual_seed(3))
    expected = model.of_vectors(torch.tensor([2]), vectors[None])[0]
    found = logits_of(decoder, fed(2, vectors))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_guidance_halves_read_the_same_vectors(model, decoder) -> None:
    vectors = torch.randn(LENGTH, 4, generator=torch.Generator().manual_seed(4))
    guided = GuidedTarget(decoder, scale=2.0, null_token=prompt(3))
    cache = guided.new_cache(1, 1 + LENGTH)
    found = guided.score(cache, fed(0, vectors)).logits
    with_, without = (model.of_vectors(torch.tensor([k]), vectors[None])[0] for k in (0, 3))
    torch.testing.assert_close(found, without + 2 * (with_ - without), atol=1e-3, rtol=1e-4)


def test_what_reaches_what_is_the_same_in_training_and_decoding(model, decoder) -> None:
    """Output n, the place after n vectors, depends on those and no other."""
    vectors = torch.randn(LENGTH, 4, generator=torch.Generator().manual_seed(5))
    mask = torch.ones(1 + LENGTH, LENGTH).tril(-1).bool()
    for run in (
        lambda x: model.of_vectors(torch.tensor([1]), x[None])[0],
        lambda x: logits_of(decoder, fed(1, x)),
        lambda x: step_by_step(decoder, x),
    ):
        base, reached = run(vectors), torch.zeros_like(mask)
        for place in range(LENGTH):
            changed = vectors.clone()
            changed[place] += 1.0
            reached[:, place] = (run(changed) - base).abs().amax(-1) > 1e-6
        assert torch.equal(reached, mask)


def step_by_step(target: Decoder, vectors: torch.Tensor) -> torch.Tensor:
    """One node a pass."""
    cache, out, whole = target.new_cache(1, 1 + LENGTH), [], fed(1, vectors)
    for place in range(1 + LENGTH):
        node = chain(0, whole.tokens[place : place + 1])
        out.append(
            target.score(cache, replace(node, inputs=whole.inputs[place : place + 1])).logits
        )
        cache.commit(0, np.array([0]))
    return torch.cat(out)
