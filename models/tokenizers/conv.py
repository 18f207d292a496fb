"""The convolutional encoder and decoder of an image tokenizer: pixels to latents and back.

Letters: B images, P pixel channels, H x W pixels, Z latent channels, h x w places of the latents.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from models.errors import UnsupportedCheckpoint
from models.tokenizers.blocks import EPS, AttentionBlock, Conv, Double, Halve, ResidualBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvConfig:
    """The sizes of both stacks; the defaults are those of LlamaGen's VQ-16.

    Level i has `channels * multipliers[i]` channels and half the height and width of level i - 1.
    """

    image_channels: int = 3
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_blocks: int = 2  # in each level of the encoder; the decoder has one more
    latent_channels: int = 256
    num_groups: int = 32  # of the norms

    def __post_init__(self) -> None:
        for name in ("image_channels", "channels", "num_blocks", "latent_channels", "num_groups"):
            if getattr(self, name) < 1:
                raise UnsupportedCheckpoint(f"{name}={getattr(self, name)!r}: 1 or more is needed")
        if not self.multipliers or min(self.multipliers) < 1:
            raise UnsupportedCheckpoint(f"multipliers={self.multipliers!r}: one or more, each >= 1")
        if self.channels % self.num_groups:
            raise UnsupportedCheckpoint(
                f"num_groups={self.num_groups} does not divide channels={self.channels}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def shrink(self) -> int:
        """Pixels per latent place, along one side."""
        return 1 << (len(self.multipliers) - 1)


class Level(nn.Module):
    """The residual blocks of one resolution; the smallest one has attention."""

    def __init__(self, config: ConvConfig, inputs: int, outputs: int, blocks: int, smallest: bool):
        super().__init__()
        groups = config.num_groups
        sizes = pairwise([inputs] + [outputs] * blocks)
        self.residual = nn.ModuleList(ResidualBlock(*size, groups) for size in sizes)
        attention = range(blocks if smallest else 0)
        self.attention = nn.ModuleList(AttentionBlock(outputs, groups) for _ in attention)
        self.resize: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, h, w] -> [B, outputs, h, w], resized if the level resizes."""
        for index, block in enumerate(self.residual):
            x = block(x)
            if self.attention:
                x = self.attention[index](x)
        out: torch.Tensor = self.resize(x)
        return out


def _middle(config: ConvConfig) -> nn.Sequential:
    width, groups = config.widths[-1], config.num_groups
    return nn.Sequential(
        ResidualBlock(width, width, groups),
        AttentionBlock(width, groups),
        ResidualBlock(width, width, groups),
    )


class PixelEncoder(nn.Module):
    """Pixels to latents."""

    def __init__(self, config: ConvConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = Conv(config.image_channels, config.channels, 3, padding=1)
        self.levels = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(pairwise((config.channels, *widths))):
            smallest = index == len(widths) - 1
            level = Level(config, inputs, outputs, config.num_blocks, smallest)
            if not smallest:
                level.resize = Halve(outputs)
            self.levels.append(level)
        self.middle = _middle(config)
        self.norm_out = nn.GroupNorm(config.num_groups, widths[-1], EPS)
        self.conv_out = Conv(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, P, H, W] -> [B, Z, h, w]."""
        x = self.conv_in(images)
        for level in self.levels:
            x = level(x)
        out: torch.Tensor = self.conv_out(F.silu(self.norm_out(self.middle(x))))
        return out


class PixelDecoder(nn.Module):
    """Latents to pixels; its levels count from the smallest size up."""

    def __init__(self, config: ConvConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = Conv(config.latent_channels, widths[0], 3, padding=1)
        self.middle = _middle(config)
        self.levels = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(pairwise((widths[0], *widths))):
            level = Level(config, inputs, outputs, config.num_blocks + 1, smallest=index == 0)
            if index < len(widths) - 1:
                level.resize = Double(outputs)
            self.levels.append(level)
        self.norm_out = nn.GroupNorm(config.num_groups, widths[-1], EPS)
        self.conv_out = Conv(widths[-1], config.image_channels, 3, padding=1)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, Z, h, w] -> [B, P, H, W]."""
        x = self.middle(self.conv_in(latents))
        for level in self.levels:
            x = level(x)
        out: torch.Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out
