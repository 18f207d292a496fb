"""The student by `score`: it makes the vectors of all places from noise, in one pass.

A place reads the noise and the first guesses of earlier places, or their codes where the tokens are
known, as the map-headed student does. A second network of two layers reads what the place has read
and the place's own noise, and says how far the vector is from the code of the first guess. So an
untrained student is independent sampling. The token of a place is the code nearest to its vector.
Letters: B images, n tokens of an image, V vocabulary, C width of a code, D width, K classes.
"""

import torch
from torch import nn

from models.students.config import StudentConfig
from models.students.networks.raster import inputs_of
from models.students.starts import known_places
from models.tokenizers.tokenizer import nearest
from models.training.raster import RasterModel


class Generator(nn.Module):
    """The teacher's network without its output, and vectors on top."""

    prior: torch.Tensor

    def __init__(self, config: StudentConfig, codebook: torch.Tensor, prior: torch.Tensor) -> None:
        """`codebook` [V, C]; `prior` [K, n, V]: the laws of first guesses, which see the class."""
        super().__init__()
        self.config, width = config, config.width
        self.raster = RasterModel(config.raster(), codebook)
        del self.raster.lm_head
        self.noise_proj = nn.Linear(config.code_width, width)
        self.kind = nn.Embedding(2, width)
        self.own = nn.Linear(width + 2 * config.code_width, 2 * width)
        self.vector = nn.Linear(2 * width, config.code_width)
        nn.init.normal_(self.noise_proj.weight, std=0.02)
        nn.init.zeros_(self.noise_proj.bias)
        for weight in (self.kind.weight, self.vector.weight, self.vector.bias):
            nn.init.zeros_(weight)
        self.register_buffer("prior", prior.float())

    @property
    def codebook(self) -> torch.Tensor:
        """[V, C] the codes that tokens stand for."""
        return self.raster.model.codebook

    @property
    def num_parameters(self) -> int:
        """Without the prior."""
        return sum(weight.numel() for weight in self.parameters())

    def forward(
        self,
        classes: torch.Tensor,
        tokens: torch.Tensor,
        noise: torch.Tensor,
        guesses: torch.Tensor,
        starts: torch.Tensor,
    ) -> torch.Tensor:
        """The vector of each place; arguments as of `Student.forward`.

        Returns:
            [B, n, C] float32; those of place i depend on the inputs up to place i.
        """
        last = tokens.shape[1] - 1
        read = inputs_of(self, classes, tokens, noise, guesses, starts, last)
        hidden = self.raster.model.norm(self.raster.hidden(read))
        guess = self.codebook[guesses]
        told = self.own(torch.cat([hidden, noise.to(hidden.dtype), guess], dim=-1))
        vectors: torch.Tensor = guess + self.vector(nn.functional.gelu(told))
        return vectors

    def decide(
        self,
        classes: torch.Tensor,
        tokens: torch.Tensor,
        noise: torch.Tensor,
        guesses: torch.Tensor,
        starts: torch.Tensor,
    ) -> torch.Tensor:
        """[B, n] tokens: the known ones, and the codes nearest to the vectors."""
        return self.rounded(self(classes, tokens, noise, guesses, starts), tokens, starts)

    def rounded(
        self, vectors: torch.Tensor, tokens: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        """[B, n] the known tokens [B, n], and the codes nearest to the vectors [B, n, C]."""
        found = nearest(vectors.detach().flatten(0, 1), self.codebook).view_as(tokens)
        return tokens.where(known_places(starts, tokens.shape[1]), found)
