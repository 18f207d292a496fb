"""The map-headed student of a next-scale target: maps that are not known are read as noise.

The target reads, for each map, the sum of the codes of all earlier maps, resized to the map's size.
Where an earlier map is not known, the student reads its first guesses in the place of its tokens,
and beside them its noise, summed and resized in the same way. So the law of a place is a function
of the noise of earlier maps, as the target's own law is.
Letters: B images, L tokens of an image in all maps, V vocabulary, C width of a code, D width, K
classes.
"""

import torch
from torch import nn

from models.students.networks.raster import DATA, NOISE
from models.students.scale_config import ScaleStudentConfig
from models.students.starts import known_places
from models.targets.next_scale.model import NextScaleModel
from models.tokenizers.scales import ScaleTokenizer


class ScaleStudent(nn.Module):
    """The teacher's network, which reads noise beside the inputs of maps after the known ones."""

    prior: torch.Tensor
    begins: torch.Tensor

    def __init__(
        self, config: ScaleStudentConfig, tokenizer: ScaleTokenizer, prior: torch.Tensor
    ) -> None:
        """`tokenizer`: the target's, which is not part of the student; `prior` [K, L, V]."""
        super().__init__()
        self.config, sizes = config, config.sizes
        self.model = NextScaleModel(sizes, dropout=0.0)
        self.noise_proj = nn.Linear(sizes.code_width, sizes.width, bias=False)
        self.kind = nn.Embedding(2, sizes.width)
        nn.init.normal_(self.noise_proj.weight, std=0.02)
        nn.init.zeros_(self.kind.weight)
        self.register_buffer("prior", prior.float())
        self._tokenizer = (tokenizer,)  # in a tuple: its weights are not the student's
        begins = torch.tensor((0, *config.bounds))[sizes.levels()]  # [L] of each place's map
        self.register_buffer("begins", begins, persistent=False)

    @property
    def codebook(self) -> torch.Tensor:
        """[V, C] the codes that tokens stand for."""
        return self._tokenizer[0].codebook().detach()

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
        until: int | None = None,
    ) -> torch.Tensor:
        """The law of each place; see `Student.forward`.

        `starts` and `until` are first places of maps, or L. [B, L or until, V] float32 logits;
        those of a place depend on the inputs of earlier maps.
        """
        known = known_places(starts, tokens.shape[1])  # [B, L]
        tokenizer = self._tokenizer[0]
        read = tokenizer.inputs_of(self.codebook[tokens.where(known, guesses)])  # [B, L, C]
        unknown = tokenizer.inputs_of(noise.masked_fill(known[..., None], 0.0))
        noisy = (self.begins > starts[:, None])[..., None]  # an earlier map is not known
        told = self.noise_proj(unknown) + self.kind.weight[NOISE]
        more = torch.where(noisy, told, self.kind.weight[DATA])
        some = slice(0, until)
        logits: torch.Tensor = self.model(classes, read[:, some], more[:, some])
        return logits
