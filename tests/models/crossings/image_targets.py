"""Targets of images: raster grids, with and without a student, and grids of scales."""

import numpy as np
import torch
from torch.nn import functional as F

from models.students.config import MadeFor, StudentConfig
from models.students.networks.frozen import FrozenStudent
from models.students.networks.raster import Student
from models.students.start import student_of
from models.targets.decoder.config import GridInput, RotaryConfig
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.inputs import CODEBOOK
from models.targets.decoder.weights import assemble
from models.targets.guided import guide
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.targets.next_scale.scale_target import NextScaleTarget
from models.targets.target import Target
from models.training.raster import RasterConfig, RasterModel
from tests.models.crossings.dice import pick
from tests.models.crossings.text_targets import DTYPES, random_config
from tests.models.tokenizers import tiny_images

CPU = torch.device("cpu")


def image_target(rng: np.random.Generator) -> Target:
    """A raster grid, with or without codes and guidance."""
    side, codes = int(rng.choice([5, 8])), rng.random() < 0.7
    config = random_config(
        rng,
        vocab_size=int(rng.choice([16, 24])),
        head_dim=int(rng.choice([8, 16])),
        context_length=1 + side * side,
        rotary=RotaryConfig(kind="grid", row_length=side),
        grid=GridInput(num_classes=3, code_width=4 if codes else None),
        eos_token_ids=(),
        window=None,
        tied=False,
    )
    made = Decoder.from_config(config, int(rng.integers(1 << 30)))
    return guide(made, float(rng.choice([1.0, 1.0, 2.5])))


def taught_target(rng: np.random.Generator) -> Target:
    """A raster grid that has a student, which can draft; see `student`."""
    config = RasterConfig(
        vocab_size=24, code_width=4, num_classes=3, grid_width=4, grid_height=6,
        width=32, inner_width=48, num_layers=int(rng.choice([1, 2])), num_heads=2,
    )  # fmt: skip
    torch.manual_seed(int(rng.integers(1 << 30)))
    model = RasterModel(config, F.normalize(torch.randn(24, 4), dim=-1)).eval()
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.25)
    said = StudentConfig.of(config, MadeFor(path="target", digest="a" * 32))
    prior = torch.randn(3, config.num_tokens, 24).softmax(-1)
    made = student_of(model, said, prior)
    assert isinstance(made, Student)
    state = {**model.state_dict(), CODEBOOK: made.codebook}
    weights = assemble(
        config.decoder(), lambda name: state[name].detach(), dtype=torch.float32, device=CPU
    )
    target = Decoder(config.decoder(), weights, dtype=torch.float32, device=CPU)
    target.student = FrozenStudent(made)  # type: ignore[attr-defined]
    return guide(target, float(rng.choice([1.0, 1.5])))


def scales_target(rng: np.random.Generator) -> Target:
    """A target that writes whole maps at once, of classes that modulate it."""
    sizes = {"shared_modulation": bool(rng.random() < 0.5), "unit_qk": bool(rng.random() < 0.5)}
    config = NextScaleConfig(
        vocab_size=tiny_images.VOCABULARY, code_width=4, num_classes=3,
        scales=tiny_images.SCALES, width=32, inner_width=int(rng.choice([48, 44])),
        num_layers=2, num_heads=2, **sizes,
    )  # fmt: skip
    torch.manual_seed(int(rng.integers(1 << 30)))
    model = NextScaleModel(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.25 if weight.ndim == 2 else 0.5)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    target = NextScaleTarget(
        config, state, tiny_images.scales(), dtype=pick(rng, DTYPES), device=CPU
    )
    return guide(target, float(rng.choice([1.0, 1.7])))
