"""A vector-quantised grid tokenizer: one token per place, row by row (LlamaGen's VQ-16).

Letters: B images, P pixel channels, H x W pixels, L = h * w places, V codes of width C.
"""

from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from models.errors import UnsupportedCheckpoint
from models.tokenizers.conv import ConvConfig
from models.tokenizers.tokenizer import ImageTokenizer, nearest, places, vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class GridConfig:
    """`background`: the pixel value that a preview shows where tokens are missing."""

    conv: ConvConfig = field(default_factory=ConvConfig)
    image_size: int = 256
    vocab_size: int = 16384
    code_width: int = 8
    background: float = 0.0

    def __post_init__(self) -> None:
        for name in ("image_size", "vocab_size", "code_width"):
            if getattr(self, name) < 1:
                raise UnsupportedCheckpoint(f"{name}={getattr(self, name)!r}: 1 or more is needed")
        if self.image_size % self.conv.shrink:
            raise UnsupportedCheckpoint(
                f"image_size={self.image_size}: a multiple of {self.conv.shrink} is needed"
            )

    @property
    def num_tokens(self) -> int:
        """Tokens of an image."""
        return (self.image_size // self.conv.shrink) ** 2


class GridTokenizer(ImageTokenizer):
    """Codes and quantised vectors have length 1, so the nearest code has the largest product."""

    model_type = "paceline_grid_tokenizer"

    def __init__(self, config: GridConfig) -> None:
        super().__init__(config, kernel=1)
        self.num_tokens = config.num_tokens
        self._background = config.background
        self._empty: torch.Tensor | None = None

    def codebook(self) -> torch.Tensor:
        """The vectors [V, C] that tokens stand for, each of length 1."""
        return F.normalize(self.codes, dim=-1)

    def directions(self, images: torch.Tensor) -> torch.Tensor:
        """The vectors to quantise, [B, L, C], each of length 1."""
        return F.normalize(vectors(self.features(images)), dim=-1)

    def quantise(self, values: torch.Tensor) -> torch.Tensor:
        """The token [B, n] nearest to each of `values` [B, n, C]."""
        flat = F.normalize(values, dim=-1).flatten(0, 1)
        return nearest(flat, self.codebook()).view(values.shape[:2])

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """[B, P, H, W] -> tokens [B, L]."""
        return self.quantise(self.directions(images))

    @torch.no_grad()
    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [B, L] -> [B, P, H, W] in -1 to 1."""
        self.need_all(tokens)
        return self.decode_values(self.codebook()[tokens])

    @torch.no_grad()
    def decode_values(self, values: torch.Tensor) -> torch.Tensor:
        """Any vectors [B, L, C] (codes or not) -> [B, P, H, W] in -1 to 1."""
        return self.pixels(places(values)).clamp(-1, 1)

    @torch.no_grad()
    def decode_prefix(self, tokens: torch.Tensor) -> torch.Tensor:
        """A preview from the first tokens [B, n], n in 0 to L, completed with an empty image."""
        known = self.checked(tokens)
        rest = self.empty().to(tokens.device)[known.shape[1] :].expand(len(known), -1)
        return self.decode(torch.cat([known, rest], dim=1))

    @torch.no_grad()
    def empty(self) -> torch.Tensor:
        """The tokens [L] of an image that is background everywhere."""
        if self._empty is None or self.training:
            channels, size = self.config.conv.image_channels, self.image_size
            image = self.codes.new_full((1, channels, size, size), self._background)
            self._empty = self.encode(image)[0]
        return self._empty

    def train(self, mode: bool = True) -> "GridTokenizer":
        """Also clears the cached tokens of an empty image, because weights may change."""
        self._empty = None
        return super().train(mode)
