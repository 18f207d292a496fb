"""A multi-scale residual tokenizer (VAR's layout): maps of tokens, from coarse to fine.

The features are the sum over scales of phi(upsampled codes). Each scale quantises the residual of
the earlier scales. Letters: B images, P pixel channels, H x W pixels, L tokens of an image in all
scales, S scales, n tokens of one scale, V codes of width C, h x w places of the features.
"""

from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import nn
from torch.nn import functional as F

from models.errors import InvalidRequest, UnsupportedCheckpoint
from models.tokenizers.blocks import Conv
from models.tokenizers.conv import ConvConfig
from models.tokenizers.tokenizer import ImageTokenizer, nearest, places, vectors

PUBLISHED_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalesConfig:
    """`scales`: the side of each map, increasing; the last map is as large as the features.

    The scales share `num_residuals` convolutions phi. `residual_share`: the share of phi's output
    that comes from the convolution; the rest is its input.
    """

    conv: ConvConfig = field(default_factory=lambda: ConvConfig(channels=160, latent_channels=32))
    image_size: int = 256
    vocab_size: int = 4096
    code_width: int = 32
    scales: tuple[int, ...] = PUBLISHED_SCALES
    num_residuals: int = 4
    residual_share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("image_size", "vocab_size", "code_width", "num_residuals"):
            if getattr(self, name) < 1:
                raise UnsupportedCheckpoint(f"{name}={getattr(self, name)!r}: 1 or more is needed")
        side = self.image_size // self.conv.shrink
        rising = list(self.scales) == sorted(set(self.scales))
        if not (rising and self.scales and self.scales[0] >= 1 and self.scales[-1] == side):
            raise UnsupportedCheckpoint(f"scales={self.scales!r}: rising sides up to {side} needed")
        if self.image_size % self.conv.shrink:
            raise UnsupportedCheckpoint(
                f"image_size={self.image_size}: a multiple of {self.conv.shrink} is needed"
            )

    @property
    def num_tokens(self) -> int:
        """Tokens of an image in all scales."""
        return sum(side**2 for side in self.scales)


class Residual(Conv):
    """phi: a convolution that smooths the upsampled codes of a scale."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__(width, width, 3, padding=1)
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] -> the same shape."""
        return torch.lerp(x, super().forward(x), self.share)


class ScaleTokenizer(ImageTokenizer):
    """The tokens are those of all maps one after the other, each map row by row."""

    model_type = "paceline_scale_tokenizer"

    def __init__(self, config: ScalesConfig) -> None:
        super().__init__(config, kernel=3)
        self.scales = config.scales
        self.ends = tuple(accumulate(side**2 for side in config.scales))  # tokens up to each scale
        self.num_tokens = self.ends[-1]
        shares = (config.residual_share for _ in range(config.num_residuals))
        self.residuals = nn.ModuleList(Residual(config.code_width, share) for share in shares)
        self.residual_of = residual_of_scale(len(config.scales), config.num_residuals)

    def codebook(self) -> torch.Tensor:
        """The vectors [V, C] that tokens stand for."""
        return self.codes

    def start(self, scale: int) -> int:
        """The number of tokens before a scale."""
        return self.ends[scale - 1] if scale else 0

    def nothing(self, images: int) -> torch.Tensor:
        """The features [B, C, h, w] before any scale: zero."""
        return self.codes.new_zeros(images, self.code_width, self.side, self.side)

    def detail(self, values: torch.Tensor, scale: int) -> torch.Tensor:
        """The contribution [B, C, h, w] of a scale's codes [B, n, C] to the features."""
        wide = places(values)
        if self.scales[scale] != self.side:
            wide = F.interpolate(wide, size=(self.side, self.side), mode="bicubic")
        out: torch.Tensor = self.residuals[self.residual_of[scale]](wide)
        return out

    def shrunk(self, features: torch.Tensor, scale: int) -> torch.Tensor:
        """Features [B, C, h, w] averaged to a scale's size, as vectors [B, n, C]."""
        side = self.scales[scale]
        if side != self.side:
            features = F.interpolate(features, size=(side, side), mode="area")
        return vectors(features)

    def quantise(self, values: torch.Tensor) -> torch.Tensor:
        """The token [B, n] nearest to each of `values` [B, n, C]."""
        return nearest(values.flatten(0, 1), self.codes).view(values.shape[:2])

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """[B, P, H, W] -> tokens [B, L]."""
        rest, tokens = self.features(images), []
        for scale in range(len(self.scales)):
            tokens.append(self.quantise(self.shrunk(rest, scale)))
            rest = rest - self.detail(self.codes[tokens[-1]], scale)
        return torch.cat(tokens, dim=1)

    @torch.no_grad()
    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [B, L] -> [B, P, H, W] in -1 to 1."""
        return self.decode_prefix(self.need_all(tokens))

    @torch.no_grad()
    def decode_prefix(self, tokens: torch.Tensor) -> torch.Tensor:
        """A preview from the tokens [B, n] of the first scales; raises if a scale is incomplete."""
        known = self.checked(tokens)
        if known.shape[1] not in (0, *self.ends):
            told = ", ".join(map(str, (0, *self.ends)))
            raise InvalidRequest(f"{known.shape[1]} tokens end within a scale; whole are {told}")
        num_scales = (0, *self.ends).index(known.shape[1])
        return self.pixels(self.sum_up(known, num_scales)).clamp(-1, 1)

    def sum_up(self, tokens: torch.Tensor, num_scales: int) -> torch.Tensor:
        """The sum [B, C, h, w] of the features of the first scales of `tokens` [B, n]."""
        features = self.nothing(len(tokens))
        for scale in range(num_scales):
            part = tokens[:, self.start(scale) : self.ends[scale]]
            features = features + self.detail(self.codes[part], scale)
        return features

    @torch.no_grad()
    def next_input(self, tokens: torch.Tensor, scale: int) -> torch.Tensor:
        """A target's inputs of `scale`: the sum of earlier scales, resized to its size, [B, n, C].

        `tokens` [B, m]: those of all earlier scales, at least. Scale 0 gets zeros.
        """
        known = self.checked(tokens)
        if not 0 <= scale < len(self.scales):
            raise InvalidRequest(f"scale {scale}; 0 to {len(self.scales) - 1} are known")
        if known.shape[1] < self.start(scale):
            raise InvalidRequest(
                f"{known.shape[1]} tokens; scale {scale} follows {self.start(scale)} of them"
            )
        return self.shrunk(self.sum_up(known, scale), scale)

    @torch.no_grad()
    def inputs(self, tokens: torch.Tensor) -> torch.Tensor:
        """A target's inputs of all scales of whole images [B, L]: [B, L, C]."""
        return self.inputs_of(self.codes[self.need_all(tokens)])

    @torch.no_grad()
    def inputs_of(self, values: torch.Tensor) -> torch.Tensor:
        """The same of any vectors [B, L, C], codes or not, in the places of codes."""
        features, parts = self.nothing(len(values)), []
        for scale, end in enumerate(self.ends):
            parts.append(self.shrunk(features, scale))
            features = features + self.detail(values[:, self.start(scale) : end], scale)
        return torch.cat(parts, dim=1)


def residual_of_scale(scales: int, residuals: int) -> tuple[int, ...]:
    """The phi of each scale: the one with the nearest position on 0 to 1.

    Scale i is at i / (S - 1). The phi are at the centres of equal parts; four phi start a third of
    a part from the ends, as published.
    """
    edge = 1 / 3 / residuals if residuals == 4 else 1 / 2 / residuals
    step = (1 - 2 * edge) / max(1, residuals - 1)
    marks = [edge + step * index for index in range(residuals)]
    chosen = []
    for scale in range(scales):
        place = scale / max(1, scales - 1)
        chosen.append(min(range(residuals), key=lambda index: abs(marks[index] - place)))
    return tuple(chosen)
