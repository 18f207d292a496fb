"""The map-headed student: the teacher's network, which reads noise where tokens are not known yet.

Place i of the output is a law over codes; the flow map on top turns it and the noise of place i
into a token. A token before place i is a function of the noise before place i. So a network that
reads this noise can have the teacher's own law as its output.
Letters: B images, n tokens of an image, V vocabulary, C width of a code, D width, K classes.
"""

from typing import Protocol

import torch
from torch import nn

from models.students.config import StudentConfig
from models.students.starts import known_places
from models.training.raster import RasterModel

DATA, NOISE = 0, 1


class Student(nn.Module):
    """Reads, for each place, the code of its token, or the place's noise and a first guess."""

    prior: torch.Tensor

    def __init__(self, config: StudentConfig, codebook: torch.Tensor, prior: torch.Tensor) -> None:
        """`codebook` [V, C]; `prior` [K, n, V]: the laws of first guesses, which see the class."""
        super().__init__()
        self.config = config
        self.raster = RasterModel(config.raster(), codebook)
        self.noise_proj = nn.Linear(config.code_width, config.width)
        self.kind = nn.Embedding(2, config.width)
        nn.init.normal_(self.noise_proj.weight, std=0.02)
        nn.init.zeros_(self.noise_proj.bias)
        nn.init.zeros_(self.kind.weight)
        self.register_buffer("prior", prior.float())

    @property
    def codebook(self) -> torch.Tensor:
        """[V, C] the codes that tokens stand for."""
        return self.raster.model.codebook

    def forward(
        self,
        classes: torch.Tensor,
        tokens: torch.Tensor,
        noise: torch.Tensor,
        guesses: torch.Tensor,
        starts: torch.Tensor,
        until: int | None = None,
    ) -> torch.Tensor:
        """The law of each place.

        Args:
            classes: [B] int64.
            tokens: [B, n] int64; those before `starts` are read.
            noise: [B, n, C] standard normal; read from `starts` on.
            guesses: [B, n] int64, the first guesses; read from `starts` on.
            starts: [B] int64, 0 to n: how many tokens are known.
            until: only for places before this one; None: for all n.
        Returns:
            [B, n or until, V] float32 logits; those of place i depend on the inputs before place i.
        """
        last = (until or tokens.shape[1]) - 1
        return self.raster.of_inputs(inputs_of(self, classes, tokens, noise, guesses, starts, last))


class Reader(Protocol):
    """What reads noise in the place of tokens."""

    raster: RasterModel
    noise_proj: nn.Linear
    kind: nn.Embedding


def inputs_of(
    student: Reader,
    classes: torch.Tensor,
    tokens: torch.Tensor,
    noise: torch.Tensor,
    guesses: torch.Tensor,
    starts: torch.Tensor,
    last: int,
) -> torch.Tensor:
    """The first layer's input: the class, then what is read of the first `last` places.

    Args:
        student: the network; the others as of `Student.forward`.
    Returns:
        [B, 1 + last, D].
    """
    trunk, reads = student.raster.model, student.noise_proj
    known = known_places(starts, last)  # [B, last]
    ids = tokens[:, :last].where(known, guesses[:, :last])
    read = trunk.input_proj(trunk.codebook[ids].to(reads.weight.dtype))
    unknown = reads(noise[:, :last].to(read.dtype)) + student.kind(_index(NOISE, read))
    more = torch.where(known[..., None], student.kind(_index(DATA, read)), unknown)
    return torch.cat([trunk.class_embed(classes).unsqueeze(1), read + more], dim=1)


def _index(value: int, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(value, device=like.device)
