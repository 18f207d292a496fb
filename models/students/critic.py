"""The second network of `score`: it follows the law of the student's own vectors.

The paper calls it the guidance network; here, guidance means the scale of a target's classes. It
reads the tokens of earlier places, and knows which of them the student was given. Its mean of a
noised vector has two parts: the closed form under a law over codes, and a correction, which is zero
at first. With the teacher's weights it starts as the teacher.
Letters: B images, n tokens of an image, V vocabulary, C width of a code, D width.
"""

import math

import torch
from torch import nn

from models.students.config import StudentConfig
from models.students.network import DATA, NOISE
from models.students.noised import mean_given
from models.students.teacher import Teacher
from models.training.raster import RasterModel

WAVES = 4  # of a time


def critic_of(teacher: Teacher, config: StudentConfig) -> "Critic":
    """A critic that says what the teacher, of a raster target, does."""
    assert isinstance(teacher, RasterModel)
    made = Critic(config, teacher.codebook)
    made.raster.load_state_dict(teacher.state_dict())
    return made


class Critic(nn.Module):
    """The teacher's network; what it reads is told by `read`, what it says of vectors by `mean`."""

    def __init__(self, config: StudentConfig, codebook: torch.Tensor) -> None:
        """`codebook` [V, C]."""
        super().__init__()
        self.raster = RasterModel(config.raster(), codebook)
        self.kind = nn.Embedding(2, config.width)
        self.seen = nn.Linear(config.width + config.code_width + 2 * WAVES, config.width)
        self.more = nn.Linear(config.width, config.code_width)
        for weight in (self.kind.weight, self.more.weight, self.more.bias):
            nn.init.zeros_(weight)

    def forward(
        self, classes: torch.Tensor, tokens: torch.Tensor, starts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is known of each place before its vector is seen.

        Args:
            classes: [B] int64. tokens: [B, n] int64. starts: [B], how many of them were given.
        Returns:
            logits [B, n, V] of the student's own law, and features [B, n, D].
        """
        trunk, last = self.raster.model, tokens.shape[1] - 1
        known = (torch.arange(last) < starts[:, None])[..., None]
        told = torch.where(known, self.kind.weight[DATA], self.kind.weight[NOISE])
        read = trunk.input_proj(trunk.codebook[tokens[:, :last]]) + told
        first = trunk.class_embed(classes).unsqueeze(1)
        features = trunk.norm(self.raster.hidden(torch.cat([first, read], dim=1)))
        logits: torch.Tensor = self.raster.lm_head(features)
        return logits, features

    def mean(
        self, logits: torch.Tensor, features: torch.Tensor, x: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """The mean of the student's vectors, given noised ones.

        Args:
            logits: [B, n, V], and features [B, n, D], of `forward`.
            x: [..., B, n, C] at the times t [..., B, n, 1].
        Returns:
            as x.
        """
        angles = math.pi * 2 ** torch.arange(WAVES) * t  # [..., WAVES]
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        wide = features.expand(*x.shape[:-1], features.shape[-1])
        seen = nn.functional.gelu(self.seen(torch.cat([wide, x, waves], dim=-1)))
        more: torch.Tensor = self.more(seen)
        return mean_given(logits, self.raster.codebook, x, t) + more
