"""Training of an image tokenizer: its loss, and the replacement of unused codes.

Letters: B images, P pixel channels, L tokens of an image, M vectors, V codes of width C.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from models.tokenizers.grid import GridTokenizer
from models.tokenizers.scales import ScaleTokenizer
from models.tokenizers.tokenizer import places

COMMITMENT = 0.25  # weight of the encoder's commitment loss relative to the codebook loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The loss of a batch, its pixel part, and the quantised vectors with their tokens."""

    loss: torch.Tensor
    pixel_error: torch.Tensor  # mean square
    tokens: torch.Tensor  # [M]
    vectors: torch.Tensor  # [M, C] the vectors that were quantised


def tokenizer_step(tokenizer: GridTokenizer | ScaleTokenizer, images: torch.Tensor) -> Step:
    """The loss on images [B, P, H, W], with gradients."""
    step = _grid_step if isinstance(tokenizer, GridTokenizer) else _scale_step
    return step(tokenizer, images)  # type: ignore[arg-type]


def _grid_step(tokenizer: GridTokenizer, images: torch.Tensor) -> Step:
    directions = tokenizer.directions(images)  # [B, L, C]
    tokens = tokenizer.quantise(directions.detach())
    codes = tokenizer.codebook()[tokens]
    distance = _pulled(codes, directions)
    error = F.mse_loss(tokenizer.pixels(places(_straight(codes, directions))), images)
    return _step(error, distance, [tokens], [directions])


def _scale_step(tokenizer: ScaleTokenizer, images: torch.Tensor) -> Step:
    features = tokenizer.features(images)  # [B, C, h, w]
    total, distance = tokenizer.nothing(len(images)), features.new_zeros(())
    tokens, vectors = [], []
    for scale in range(len(tokenizer.scales)):
        vectors.append(tokenizer.shrunk((features - total).detach(), scale))
        tokens.append(tokenizer.quantise(vectors[-1]))
        total = total + tokenizer.detail(tokenizer.codes[tokens[-1]], scale)
        distance = distance + _pulled(total, features) / len(tokenizer.scales)
    error = F.mse_loss(tokenizer.pixels(_straight(total, features)), images)
    return _step(error, distance, tokens, vectors)


def _step(
    error: torch.Tensor,
    distance: torch.Tensor,
    tokens: list[torch.Tensor],
    vectors: list[torch.Tensor],
) -> Step:
    return Step(
        loss=error + distance,
        pixel_error=error.detach(),
        tokens=torch.cat([part.flatten() for part in tokens]),
        vectors=torch.cat([part.detach().flatten(0, 1) for part in vectors]),
    )


def _pulled(codes: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
    """Codebook loss plus COMMITMENT times commitment loss (mean squared distances)."""
    return F.mse_loss(codes, encoded.detach()) + COMMITMENT * F.mse_loss(encoded, codes.detach())


def _straight(codes: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
    """The codes, with straight-through gradients to the encoder."""
    return encoded + (codes - encoded).detach()


class CodeUse:
    """`shares` [V]: how often each code is used; rarely used codes are replaced."""

    def __init__(self, codes: int, *, decay: float = 0.98, least: float = 0.05) -> None:
        """`least`: the minimum share, relative to uniform use of all codes."""
        self.shares = torch.zeros(codes)
        self._decay, self._least = decay, least

    def observe(self, tokens: torch.Tensor) -> None:
        """Count a batch's tokens [M]."""
        counts = torch.bincount(tokens.cpu(), minlength=len(self.shares)).float()
        self.shares.lerp_(counts / counts.sum(), 1 - self._decay)

    def revive(self, codes: torch.Tensor, step: Step, generator: torch.Generator) -> int:
        """Replace unused `codes` [V, C] in place with random vectors; returns how many."""
        dead = (self.shares < self._least * self.shares.sum() / len(self.shares)).nonzero()[:, 0]
        if len(dead) == 0 or self.shares.sum() == 0:
            return 0
        chosen = torch.randint(len(step.vectors), (len(dead),), generator=generator)
        codes.data[dead.to(codes.device)] = step.vectors[chosen.to(codes.device)]
        self.shares[dead] = self.shares.sum() / len(self.shares)
        return len(dead)


def start_codes(codes: torch.Tensor, step: Step, generator: torch.Generator) -> None:
    """Replace all `codes` [V, C] in place with random vectors of a batch."""
    chosen = torch.randperm(len(step.vectors), generator=generator)[: len(codes)]
    codes.data[: len(chosen)] = step.vectors[chosen.to(codes.device)]
