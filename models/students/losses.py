"""What the methods minimise, for one batch of samples.

Letters: B samples, n tokens of an image, V vocabulary, C width of a code.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from models.students.starts import known_places
from models.tokenizers.load import load_tokenizer
from models.tokenizers.tokenizer import places
from models.training.engines.worker import CPU
from models.training.losses import divergence

# vectors [B, n, C] and the codes [B, n, C] that they should be -> [B] a distance of their pictures
Pictures = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Whole images with their noise, and how many of their tokens the student knows."""

    classes: torch.Tensor  # [B]
    tokens: torch.Tensor  # [B, n]
    noise: torch.Tensor  # [B, n, C]
    guesses: torch.Tensor  # [B, n]
    starts: torch.Tensor  # [B]

    @property
    def unknown(self) -> torch.Tensor:
        """[B, n] the places to decide."""
        return ~known_places(self.starts, self.tokens.shape[1])

    def to(self, device: torch.device) -> "Given":
        """The same on a device."""
        return Given(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def loss_of_laws(student: nn.Module, given: Given, teacher: torch.Tensor) -> torch.Tensor:
    """`flow-map`: the sum over unknown places of KL(teacher's law | student's law), nats.

    `teacher`: its logits [B, n, V].
    """
    s = given
    logits = student(s.classes, s.tokens, s.noise, s.guesses, s.starts)
    wanted = teacher.log_softmax(-1)  # [B, n, V]
    total: torch.Tensor = (divergence(wanted, logits.float()) * s.unknown).sum()
    return total


def loss_of_heads(
    student: nn.Module, given: Given, codebook: torch.Tensor, pictures: Pictures | None
) -> torch.Tensor:
    """`two-head`: a sum over unknown places.

    The cross-entropy of the teacher's tokens, the squared distance of vectors to the tokens' codes,
    and, with `pictures`, the distance of the pictures that they make, for each unknown place.
    """
    s = given
    logits, vectors = student(s.classes, s.tokens, s.noise, s.starts)
    codes = codebook[s.tokens]
    entropy = F.cross_entropy(logits.flatten(0, 1), s.tokens.flatten(), reduction="none")
    far = (vectors - codes).square().sum(-1)  # [B, n]
    total: torch.Tensor = ((entropy.view_as(far) + far) * s.unknown).sum()
    if pictures is None:
        return total
    drawn = vectors.where(s.unknown[..., None], codes)
    total += (pictures(drawn, codes) * s.unknown.sum(-1)).sum()
    return total


def pictures_of(target: str | Path, device: torch.device = CPU) -> Pictures:
    """Huber's distance of pixels, and the squared distance of the target's tokenizer's features.

    The features take the place of the published loss's network, which is trained on photographs.
    """
    tokenizer = load_tokenizer(target).eval().requires_grad_(False).to(device)

    def distance(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        found, wanted = (tokenizer.pixels(places(values)) for values in (vectors, codes))
        pixels = F.huber_loss(found, wanted, reduction="none").flatten(1).mean(-1)
        read, told = (tokenizer.features(images) for images in (found, wanted))
        return pixels + (read - told).square().flatten(1).mean(-1)

    return distance
