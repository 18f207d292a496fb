"""The base of the image tokenizers: a codebook, encoding, decoding, saving.

Letters: B images, P pixel channels, H x W pixels, L tokens of an image, n of them, V codes of
width C, Z latent channels, h x w places.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from models.errors import InvalidRequest
from models.store import write_folder
from models.tokenizers.blocks import Conv
from models.tokenizers.conv import ConvConfig, PixelDecoder, PixelEncoder

BLOCK = 2**24  # elements of the similarity matrix in memory at once


class Sizes(Protocol):
    """The fields that every tokenizer's configuration has."""

    @property
    def conv(self) -> ConvConfig: ...
    @property
    def image_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def code_width(self) -> int: ...


class ImageTokenizer(nn.Module, ABC):
    """Base class. Pixels are float in -1 to 1; tokens are int64 in 0 to V - 1."""

    model_type: str
    num_tokens: int  # L

    def __init__(self, config: Sizes, kernel: int) -> None:
        """`kernel`: kernel size of the convolutions between latents and codes."""
        super().__init__()
        conv, width, border = config.conv, config.code_width, kernel // 2
        self.config = config
        self.image_size, self.vocab_size, self.code_width = (
            config.image_size,
            config.vocab_size,
            width,
        )
        self.side = config.image_size // conv.shrink  # places along one side
        self.encoder, self.decoder = PixelEncoder(conv), PixelDecoder(conv)
        self.to_code = Conv(conv.latent_channels, width, kernel, padding=border)
        self.from_code = Conv(width, conv.latent_channels, kernel, padding=border)
        self.codes = nn.Parameter(torch.randn(config.vocab_size, width))

    @abstractmethod
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """[B, P, H, W] -> tokens [B, L]."""

    @abstractmethod
    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [B, L] -> [B, P, H, W]."""

    @abstractmethod
    def decode_prefix(self, tokens: torch.Tensor) -> torch.Tensor:
        """A preview [B, P, H, W] of images of which the first n tokens [B, n] are known."""

    @abstractmethod
    def codebook(self) -> torch.Tensor:
        """The vectors [V, C] that tokens stand for."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """[B, P, H, W] -> the features to quantise, [B, C, h, w]."""
        wanted = (self.config.conv.image_channels, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
            raise InvalidRequest(
                f"images of shape {tuple(images.shape)}; (number, {', '.join(map(str, wanted))})"
                " is needed: channels, height, width"
            )
        out: torch.Tensor = self.to_code(self.encoder(images))
        return out

    def pixels(self, values: torch.Tensor) -> torch.Tensor:
        """Quantised features [B, C, h, w] -> [B, P, H, W], not yet clamped."""
        out: torch.Tensor = self.decoder(self.from_code(values))
        return out

    def checked(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens [B, n], n at most L; raises InvalidRequest if they are invalid."""
        if tokens.ndim != 2 or tokens.shape[1] > self.num_tokens or tokens.dtype != torch.int64:
            raise InvalidRequest(
                f"tokens of shape {tuple(tokens.shape)}, {tokens.dtype}; (number of images, at most"
                f" {self.num_tokens}) int64 is needed"
            )
        if tokens.numel() and not (tokens.min() >= 0 and tokens.max() < self.vocab_size):
            worst = int(tokens.max()) if tokens.min() >= 0 else int(tokens.min())
            raise InvalidRequest(f"image token {worst}; 0 to {self.vocab_size - 1} are known")
        return tokens

    def need_all(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tokens [B, L]; raises InvalidRequest if some are missing or invalid."""
        if self.checked(tokens).shape[1] < self.num_tokens:
            raise InvalidRequest(
                f"{tokens.shape[1]} tokens an image; {self.num_tokens} are needed, or decode_prefix"
            )
        return tokens

    def save(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the folder, with the tensors in `dtype` (None: unchanged)."""
        tensors = {name: tensor.to(dtype) for name, tensor in self.state_dict().items()}
        write_folder(folder, self.model_type, self.config, tensors)


def nearest(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The code [N] of `codes` [V, C] that is nearest to each of `vectors` [N, C]."""
    offset = codes.square().sum(-1) / 2  # |v - c|² / 2 = |v|² / 2 - vᵀc + |c|² / 2
    rows = max(1, BLOCK // len(codes))
    parts = [(part @ codes.T - offset).argmax(-1) for part in vectors.split(rows)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=codes.device)


def places(values: torch.Tensor) -> torch.Tensor:
    """Vectors of a square of places, row by row, [B, n, C] -> [B, C, h, w]."""
    side = round(values.shape[1] ** 0.5)
    return values.transpose(1, 2).reshape(len(values), -1, side, side)


def vectors(features: torch.Tensor) -> torch.Tensor:
    """[B, C, h, w] -> [B, h * w, C], row by row."""
    return features.flatten(2).transpose(1, 2)
