"""Tiny image tokenizers with random weights, and images with some structure."""

import torch

from models.tokenizers.conv import ConvConfig
from models.tokenizers.grid import GridConfig, GridTokenizer
from models.tokenizers.scales import ScalesConfig, ScaleTokenizer

CONV = ConvConfig(
    image_channels=1,
    channels=8,
    multipliers=(1, 2),
    num_blocks=1,
    latent_channels=8,
    num_groups=4,
)
SCALES = (1, 2, 3, 4)
VOCABULARY = 32


def grid(seed: int = 0) -> GridTokenizer:
    torch.manual_seed(seed)
    config = GridConfig(
        conv=CONV, image_size=8, vocab_size=VOCABULARY, code_width=4, background=-1.0
    )
    return GridTokenizer(config).eval()


def scales(seed: int = 0) -> ScaleTokenizer:
    torch.manual_seed(seed)
    config = ScalesConfig(
        conv=CONV, image_size=8, vocab_size=VOCABULARY, code_width=4, scales=SCALES
    )
    made = ScaleTokenizer(config).eval()
    made.codes.data *= 0.3
    return made


def images(number: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = 2 * torch.rand(number, 1, 4, 4, generator=generator) - 1
    return coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
