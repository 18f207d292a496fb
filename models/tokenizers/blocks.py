"""The convolution blocks of the image tokenizers.

Letters: B images, D channels, h x w places.
"""

import torch
from torch import nn
from torch.nn import functional as F

EPS = 1e-6


class Conv(nn.Conv2d):
    """A convolution whose result for an image does not depend on the batch (without gradients).

    On CPU, torch chooses the kernel by the number of images and threads. This class always uses
    oneDNN's kernel.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, h, w] -> [B, outputs, h, w]."""
        if x.device.type != "cpu" or torch.is_grad_enabled() or not _has_onednn():
            return super().forward(x)
        padding, stride = self.padding, self.stride
        assert not isinstance(padding, str)
        dense = x.contiguous()  # with one image, torch cannot tell it from channels-last
        return torch.mkldnn_convolution(dense, self.weight, self.bias, padding, stride, (1, 1), 1)


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())


class ResidualBlock(nn.Module):
    """Two norm-SiLU-convolution steps with a residual connection."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, EPS)
        self.conv1 = Conv(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, EPS)
        self.conv2 = Conv(outputs, outputs, 3, padding=1)
        self.shortcut = Conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, h, w] -> [B, outputs, h, w]."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: torch.Tensor = self.shortcut(x) + y
        return out


class AttentionBlock(nn.Module):
    """Single-head attention over all places."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, EPS)
        self.qkv = Conv(channels, 3 * channels, 1)
        self.out = Conv(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, D, h, w] -> the same shape."""
        rows = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # [B, h * w, 3 D]
        queries, keys, values = (part.contiguous() for part in rows.chunk(3, dim=-1))
        read = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2)
        out: torch.Tensor = x + self.out(read.reshape(x.shape))
        return out


class Halve(Conv):
    """Halves height and width; pads the right and bottom border only."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, D, h, w] -> [B, D, h / 2, w / 2]."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Double(Conv):
    """Doubles height and width by nearest-neighbour upsampling, followed by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, D, h, w] -> [B, D, 2 h, 2 w]."""
        return super().forward(F.interpolate(x, scale_factor=2.0))
