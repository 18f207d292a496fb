"""A next-scale target for training (VAR's layout); its state is the checkpoint.

One pass decides all places of a map. The inputs of the first map are the class. The inputs of other
maps are the sum of the features of all earlier maps, resized to the map's size. A place attends to
its own map and all earlier maps. The class also modulates the inputs and outputs of every layer.
Source: Tian et al. 2024, arXiv 2404.02905.
Letters: B images, L tokens of an image in all maps, S maps, V vocabulary, K classes, C width of a
code, D width, H heads, d width of a head.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from models.errors import UnsupportedCheckpoint
from models.store import write_folder

MODEL_TYPE = "paceline_scales"
MAX_LOG_SCALE = math.log(100)  # of queries with length 1
PLAIN_SCALE = 0.25  # of other queries, in addition to 1 / √d


@dataclass(frozen=True, slots=True, kw_only=True)
class NextScaleConfig:
    """The sizes of a target over square maps with the sides `scales`.

    `shared_modulation`: all layers share one projection of the class, and each layer adds its own
    offsets; otherwise each layer has a projection. `unit_qk`: queries and keys are normalised to
    length 1, with a learned scale for each head.
    """

    vocab_size: int
    code_width: int
    num_classes: int
    scales: tuple[int, ...]
    width: int = 128
    inner_width: int = 512
    num_layers: int = 6
    num_heads: int = 4
    shared_modulation: bool = True
    unit_qk: bool = True
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        names = ("vocab_size", "code_width", "num_classes", "width", "inner_width", "num_layers")
        for name in (*names, "num_heads"):
            if getattr(self, name) < 1:
                raise UnsupportedCheckpoint(f"{name}={getattr(self, name)!r}: 1 or more is needed")
        if self.width % self.num_heads:
            raise UnsupportedCheckpoint(
                f"num_heads={self.num_heads}: a divisor of width={self.width} is needed"
            )
        if not self.scales or min(self.scales) < 1 or list(self.scales) != sorted(self.scales):
            raise UnsupportedCheckpoint(f"scales={self.scales!r}: rising sides are needed")

    @property
    def num_tokens(self) -> int:
        """Tokens of an image."""
        return sum(side**2 for side in self.scales)

    def levels(self) -> torch.Tensor:
        """[L] the index of the map of each place."""
        return torch.repeat_interleave(torch.tensor([side**2 for side in self.scales]))


class Attention(nn.Module):
    """Attention with the mask of maps; keys have no bias."""

    def __init__(self, config: NextScaleConfig) -> None:
        super().__init__()
        width, self._heads = config.width, config.num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        if config.unit_qk:
            self.log_scale = nn.Parameter(torch.full((config.num_heads,), math.log(4)))
        self._unit = config.unit_qk
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x [B, L, D], mask [L, L] bool -> [B, L, D]."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).view(*x.shape[:2], 3, self._heads, -1)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # [B, H, L, d] each
        if self._unit:
            scale = self.log_scale.clamp(max=MAX_LOG_SCALE).exp()[:, None, None]
            queries, keys = F.normalize(queries, dim=-1) * scale, F.normalize(keys, dim=-1)
        by = 1.0 if self._unit else PLAIN_SCALE / math.sqrt(queries.shape[-1])
        read = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=by)
        out: torch.Tensor = self.out(read.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, with modulated inputs (scale, shift) and outputs (factor)."""

    def __init__(self, config: NextScaleConfig, dropout: float) -> None:
        super().__init__()
        width, self._eps = config.width, config.norm_eps
        if config.shared_modulation:
            self.offsets = nn.Parameter(torch.zeros(6, width))
        else:
            self.modulation = nn.Linear(width, 6 * width)
        self._shared = config.shared_modulation
        self.attention = Attention(config)
        self.up = nn.Linear(width, config.inner_width)
        self.down = nn.Linear(config.inner_width, width)
        self._dropout = nn.Dropout(dropout)

    def constants(self) -> torch.Tensor:
        """[6, D] the part of the modulation that does not depend on the class."""
        return self.offsets if self._shared else self.modulation.bias.view(6, -1)

    def forward(self, x: torch.Tensor, told: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x [B, L, D]; told: modulation [B, 6, D], or class [B, D] for the layer to project."""
        six = told + self.offsets if self._shared else self.modulation(told).view(len(x), 6, -1)
        weigh1, weigh2, scale1, scale2, shift1, shift2 = six.unsqueeze(2).unbind(1)  # [B, 1, D]
        read = self.attention(normed(x, scale1, shift1, self._eps), mask)
        x = x + self._dropout(read) * weigh1
        grown = F.gelu(self.up(normed(x, scale2, shift2, self._eps)), approximate="tanh")
        out: torch.Tensor = x + self._dropout(self.down(grown)) * weigh2
        return out


def normed(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, eps: float) -> torch.Tensor:
    """x [..., D] normalised in float32 to mean 0 and variance 1, times 1 + scale, plus shift."""
    plain = F.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return plain.mul(scale + 1).add(shift).to(x.dtype)


class NextScaleModel(nn.Module):
    """Computes the logits of all places from a class and the inputs of all maps."""

    def __init__(self, config: NextScaleConfig, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.input_proj = nn.Linear(config.code_width, width)
        self.class_embed = nn.Embedding(config.num_classes + 1, width)
        self.place_embed = nn.Parameter(torch.empty(config.num_tokens, width))
        self.level_embed = nn.Parameter(torch.empty(len(config.scales), width))
        if config.shared_modulation:
            self.modulation = nn.Linear(width, 6 * width)
        layers = [Layer(config, dropout) for _ in range(config.num_layers)]
        self.layers = nn.ModuleList(layers)
        self.last_modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, config.vocab_size)
        self._dropout = nn.Dropout(dropout)
        self._start(layers)

    def forward(
        self, classes: torch.Tensor, inputs: torch.Tensor, more: torch.Tensor | None = None
    ) -> torch.Tensor:
        """classes [B] in 0 to K (K: null class), inputs [B, L, C] -> logits [B, L, V].

        The inputs of the first map are ignored, because the class replaces them. L may be the
        places of the first maps only. `more` [B, L, D] is added to the first layer's input.
        """
        config, first = self.config, self.config.scales[0] ** 2
        levels = config.levels()[: inputs.shape[1]].to(inputs.device)
        condition = self.class_embed(classes)  # [B, D]
        begin = condition[:, None].expand(-1, first, -1)
        x = torch.cat([begin, self.input_proj(inputs[:, first:])], dim=1)
        x = x + self.place_embed[: x.shape[1]] + self.level_embed[levels]
        x = self._dropout(x if more is None else x + more)
        told = F.silu(condition)
        six = self.modulation(told).view(len(x), 6, -1) if config.shared_modulation else told
        mask = levels[:, None] >= levels
        for layer in self.layers:
            x = layer(x, six, mask)
        scale, shift = self.last_modulation(told).unsqueeze(1).chunk(2, dim=-1)
        out: torch.Tensor = self.head(normed(x, scale, shift, config.norm_eps))
        return out

    def loss(
        self, classes: torch.Tensor, tokens: torch.Tensor, inputs: torch.Tensor
    ) -> torch.Tensor:
        """Mean cross-entropy in nats per token of images [B, L] with the given `inputs`."""
        return F.cross_entropy(self(classes, inputs).flatten(0, 1), tokens.flatten())

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """Write a checkpoint. Its tokenizer has to be in the subfolder `tokenizer`."""
        state = {name: tensor.to(dtype) for name, tensor in self.state_dict().items()}
        write_folder(folder, MODEL_TYPE, asdict(self.config), state)

    def _start(self, layers: list[Layer]) -> None:
        """Initialise with small weights and output factors of 1."""
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for layer in layers:
            nn.init.zeros_(layer.constants())
            nn.init.ones_(layer.constants()[:2])
            for matrix in (layer.attention.out, layer.down):
                matrix.weight.data /= math.sqrt(2 * self.config.num_layers)
