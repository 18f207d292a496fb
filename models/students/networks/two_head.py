"""The two-headed student, as published: it learns the map from noise to tokens itself.

A place reads its own noise, or the code of its token where that is known, and all earlier places.
One head gives logits over codes, the other, modulated by the class, a vector in the codes' space.
The first half of the places takes the likeliest code, the others the code nearest to their vector.
Source: Liu et al. 2024, Distilled Decoding (arXiv 2412.17153), and its published inference code.
There, vectors are decoded as they are; here they are rounded to codes, because rows hold tokens.
Letters: B images, n tokens of an image, V vocabulary, C width of a code, D width, K classes.
"""

import torch
from torch import nn

from models.students.config import StudentConfig
from models.students.networks.raster import DATA, NOISE
from models.students.starts import known_places
from models.tokenizers.tokenizer import nearest
from models.training.raster import RasterModel


class TwoHeadStudent(nn.Module):
    """The teacher's network with one more place, for own noise, and with one more head."""

    prior: torch.Tensor

    def __init__(self, config: StudentConfig, codebook: torch.Tensor, prior: torch.Tensor) -> None:
        """`codebook` [V, C]; `prior` [K, n, V]: of independent sampling, to compare with."""
        super().__init__()
        self.config = config
        self.raster = RasterModel(config.raster(), codebook)
        self.kind = nn.Embedding(2, config.width)
        self.modulation = nn.Linear(config.width, 2 * config.width)
        self.vector = nn.Linear(config.width, config.code_width)
        for weight in (self.kind.weight, self.modulation.weight, self.modulation.bias):
            nn.init.zeros_(weight)
        nn.init.normal_(self.vector.weight, std=0.02)
        nn.init.zeros_(self.vector.bias)
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
        starts: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What each place is, by both heads.

        Args:
            classes: [B] int64.
            tokens: [B, n] int64; those before `starts` are read.
            noise: [B, n, C] standard normal; read from `starts` on.
            starts: [B] int64, 0 to n: how many tokens are known.
        Returns:
            logits [B, n, V] and vectors [B, n, C], float32; those of place i depend on the inputs
            up to place i.
        """
        trunk = self.raster.model
        known = known_places(starts, tokens.shape[1])[..., None]  # [B, n, 1]
        read = trunk.input_proj(torch.where(known, trunk.codebook[tokens], noise))
        read = read + torch.where(known, self.kind.weight[DATA], self.kind.weight[NOISE])
        told = trunk.class_embed(classes)[:, None]  # [B, 1, D]
        hidden = self.raster.hidden(torch.cat([told, read], dim=1))[:, 1:]
        scale, shift = self.modulation(nn.functional.silu(told)).chunk(2, dim=-1)
        normed = trunk.norm(hidden)
        logits: torch.Tensor = self.raster.lm_head(normed)
        return logits, self.vector(normed * (1 + scale) + shift)

    def decide(
        self,
        classes: torch.Tensor,
        tokens: torch.Tensor,
        noise: torch.Tensor,
        starts: torch.Tensor,
    ) -> torch.Tensor:
        """[B, n] tokens: the known ones, and what the heads say."""
        logits, vectors = self(classes, tokens, noise, starts)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        near = nearest(vectors.flatten(0, 1), self.codebook).view_as(tokens)
        found = torch.where(places < self.split, logits.argmax(-1), near)
        return tokens.where(known_places(starts, tokens.shape[1]), found)

    @property
    def split(self) -> int:
        """The places before it are decided by the head over codes."""
        return max(1, self.config.num_tokens // 2)
