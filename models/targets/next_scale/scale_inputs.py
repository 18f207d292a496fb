"""The inputs of a next-scale target: the sum of earlier maps, resized to the next map's size.

This is the function `ScaleTokenizer.next_input`, written as matrix products. So the compiled
kernels give an image the same bits in every batch and on every machine.
Letters: B images, C width of a code, n places of a map, P places of the features, S maps.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.compute.linear import Linear, Scratch, make_linear
from models.tokenizers.scales import Residual, ScaleTokenizer

PRECISION = 2.0**20  # resampling weights are rounded to multiples of 1 / PRECISION


class ScaleInputs:
    """Computes the inputs, with the tokenizer's codes, resampling and convolutions."""

    def __init__(self, tokenizer: ScaleTokenizer) -> None:
        self._tokenizer, side, scratch = tokenizer, tokenizer.side, Scratch()
        self._codes = tokenizer.codebook().detach().float()

        def resample(source: int, destination: int, mode: str) -> Linear | None:
            if source == destination:
                return None
            return make_linear(resampling(source, destination, mode).to(device), None, scratch)

        device = self._codes.device
        self._up = [resample(own, side, "bicubic") for own in tokenizer.scales]
        self._down = [resample(side, own, "area") for own in tokenizer.scales]
        self._smooth = [Smooth(residual, scratch) for residual in tokenizer.residuals]

    def __call__(self, tokens: torch.Tensor, scale: int) -> torch.Tensor:
        """[B, n, C] the inputs of map `scale`, from tokens [B, m] of at least all earlier maps."""
        features = self._tokenizer.nothing(len(tokens)).float()  # [B, C, h, w]
        for before in range(scale):
            part = tokens[:, self._tokenizer.start(before) : self._tokenizer.ends[before]]
            features = features + self._detail(self._codes[part], before)
        channels = features.flatten(0, 1).flatten(1)  # [B * C, P]
        down = self._down[scale]
        small = channels if down is None else down(channels.contiguous())
        return small.view(len(tokens), -1, small.shape[1]).transpose(1, 2)

    def _detail(self, values: torch.Tensor, scale: int) -> torch.Tensor:
        """What codes [B, n, C] of a scale add to the features [B, C, h, w]."""
        side, up = self._tokenizer.side, self._up[scale]
        channels = values.transpose(1, 2).flatten(0, 1).contiguous()  # [B * C, n]
        wide = channels if up is None else up(channels)
        return self._smooth[self._tokenizer.residual_of[scale]](
            wide.view(len(values), -1, side, side)
        )


class Smooth:
    """`Residual` as a matrix product over the 3 x 3 neighbourhoods of all places."""

    def __init__(self, residual: nn.Module, scratch: Scratch) -> None:
        assert isinstance(residual, Residual)
        weight, bias = residual.weight.detach(), residual.bias
        assert bias is not None
        self._share = residual.share
        self._linear = make_linear(weight.flatten(1), bias.detach(), scratch)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] -> the same shape."""
        around = F.unfold(x, 3, padding=1).transpose(1, 2)  # [B, P, 9 C]
        smoothed = self._linear(around.flatten(0, 1).contiguous())  # [B * P, C]
        back = smoothed.view(len(x), -1, x.shape[1]).transpose(1, 2).view(x.shape)
        return x + (back - x) * self._share


def resampling(source: int, destination: int, mode: str) -> torch.Tensor:
    """[destination², source²] the weights that resample one square map to another."""
    each = torch.eye(source**2).view(-1, 1, source, source)
    matrix = F.interpolate(each, size=(destination, destination), mode=mode).flatten(1).t()
    return (matrix * PRECISION).round().div(PRECISION).contiguous()
