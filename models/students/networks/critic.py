"""The second network of `score`: it follows the law of the student's own tokens.

The paper calls it the guidance network; here, guidance means the scale of a target's classes. It
reads the tokens of earlier places, and knows which of them the student was given. Its output is a
law over codes. So its mean and velocity of a noised vector are closed forms, as the teacher's are,
and with the teacher's weights it starts as the teacher.
Letters: B images, n tokens of an image, V vocabulary, C width of a code, D width.
"""

from dataclasses import replace

import torch
from torch import nn

from models.students.config import StudentConfig
from models.students.networks.raster import DATA, NOISE
from models.students.starts import known_places
from models.students.teacher import Teacher
from models.training.raster import RasterModel


def critic_of(teacher: Teacher, config: StudentConfig) -> "Critic":
    """A critic that says what the teacher, of a raster target, does, with all of its layers."""
    assert isinstance(teacher, RasterModel)
    made = Critic(replace(config, num_layers=teacher.config.num_layers), teacher.codebook)
    made.raster.load_state_dict(teacher.state_dict())
    return made


class Critic(nn.Module):
    """The teacher's network, which is told what the student was given."""

    def __init__(self, config: StudentConfig, codebook: torch.Tensor) -> None:
        """`codebook` [V, C]."""
        super().__init__()
        self.raster = RasterModel(config.raster(), codebook)
        self.kind = nn.Embedding(2, config.width)
        nn.init.zeros_(self.kind.weight)

    def forward(
        self, classes: torch.Tensor, tokens: torch.Tensor, starts: torch.Tensor
    ) -> torch.Tensor:
        """The law of the student's token at each place, given those before it.

        Args:
            classes: [B] int64. tokens: [B, n] int64. starts: [B], how many of them were given.
        Returns:
            [B, n, V] float32 logits.
        """
        trunk, last = self.raster.model, tokens.shape[1] - 1
        known = known_places(starts, last)[..., None]
        told = torch.where(known, self.kind.weight[DATA], self.kind.weight[NOISE])
        read = trunk.input_proj(trunk.codebook[tokens[:, :last]]) + told
        first = trunk.class_embed(classes).unsqueeze(1)
        return self.raster.of_inputs(torch.cat([first, read], dim=1))
