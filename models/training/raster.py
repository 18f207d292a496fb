"""A raster target for training (LlamaGen's layout); its state is a checkpoint of our decoder.

A sequence is a class, then the codes of a grid, row by row, with 2-D rotary embedding. `Decoder`
computes the same logits from the saved state.
Letters: B images, n tokens, V vocabulary, C width of a code, D width, H heads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.store import write_folder
from models.targets.decoder.config import RASTER, DecoderConfig, parse_config
from models.targets.decoder.rotary import Rotary


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterConfig:
    """The sizes of a target over a grid of `grid_width` by `grid_height` places."""

    vocab_size: int
    code_width: int
    num_classes: int
    grid_width: int
    grid_height: int
    width: int = 128
    inner_width: int = 352
    num_layers: int = 6
    num_heads: int = 4
    dropout: float = 0.1

    @property
    def num_tokens(self) -> int:
        """Tokens of an image."""
        return self.grid_width * self.grid_height

    def as_json(self) -> dict[str, Any]:
        """The content of config.json, with Hugging Face's names where they exist."""
        return {
            "model_type": RASTER,
            "architectures": ["PacelineRasterForCausalLM"],
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "intermediate_size": self.inner_width,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "max_position_embeddings": 1 + self.num_tokens,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "num_classes": self.num_classes,
            "grid_width": self.grid_width,
            "code_width": self.code_width,
        }

    def decoder(self) -> DecoderConfig:
        """The configuration for our decoder."""
        return parse_config(self.as_json(), {})


class Attention(nn.Module):
    """Causal attention with rotary embedding by place."""

    def __init__(self, config: RasterConfig) -> None:
        super().__init__()
        self._heads, width = config.num_heads, config.width
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        """x [B, n, D], rotation [n, 1, D / H / 2] -> [B, n, D]."""
        shape = (*x.shape[:2], self._heads, -1)
        queries = turned(self.q_proj(x).view(shape), rotation).transpose(1, 2)
        keys = turned(self.k_proj(x).view(shape), rotation).transpose(1, 2)
        values = self.v_proj(x).view(shape).transpose(1, 2)
        read = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        out: torch.Tensor = self.o_proj(read.transpose(1, 2).flatten(2))
        return out


def turned(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """x [B, n, H, d] times rotation; the halves of a head are real and imaginary parts."""
    pairs = torch.view_as_complex(torch.stack(x.float().chunk(2, dim=-1), dim=-1))
    product = pairs * rotation
    return torch.cat([product.real, product.imag], dim=-1).to(x.dtype)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: RasterConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.inner_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.inner_width, bias=False)
        self.down_proj = nn.Linear(config.inner_width, config.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, n, D] -> the same shape."""
        out: torch.Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, config: RasterConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.width, 1e-5)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, 1e-5)
        self.mlp = FeedForward(config)
        self._dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        """x [B, n, D], rotation [n, 1, D / H / 2] -> [B, n, D]."""
        x = x + self._dropout(self.self_attn(self.input_layernorm(x), rotation))
        out: torch.Tensor = x + self._dropout(self.mlp(self.post_attention_layernorm(x)))
        return out


class Trunk(nn.Module):
    """The model without the output head."""

    codebook: torch.Tensor

    def __init__(self, config: RasterConfig, codebook: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook.detach().float().clone())
        self.input_proj = nn.Linear(config.code_width, config.width)
        self.class_embed = nn.Embedding(config.num_classes + 1, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.width, 1e-5)


class RasterModel(nn.Module):
    """Computes the logits of each place from the class and the codes of earlier places."""

    def __init__(self, config: RasterConfig, codebook: torch.Tensor) -> None:
        """`codebook` [V, C]: the tokenizer's codes, stored with the target and not trained."""
        super().__init__()
        self.config = config
        self.model = Trunk(config, codebook)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self._dropout = nn.Dropout(config.dropout)
        said = config.decoder()
        self._rotary = Rotary(said.rotary, said.head_dim, torch.device("cpu"))
        self._rotary.reserve(1 + config.num_tokens)
        self.apply(_start)

    @property
    def codebook(self) -> torch.Tensor:
        """[V, C] the codes that tokens stand for."""
        return self.model.codebook

    def forward(self, classes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """classes [B] in 0 to K (K: null class), tokens [B, n] -> logits [B, n + 1, V]."""
        return self.of_vectors(classes, self.model.codebook[tokens])

    def of_vectors(self, classes: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """classes [B], vectors [B, n, C], codes or not -> logits [B, n + 1, V]."""
        first = self.model.class_embed(classes).unsqueeze(1)
        return self.of_inputs(torch.cat([first, self.model.input_proj(vectors)], dim=1))

    def of_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """The first layer's input [B, n + 1, D], the class first -> logits [B, n + 1, V]."""
        out: torch.Tensor = self.lm_head(self.model.norm(self.hidden(x)))
        return out

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        """The first layer's input [B, n + 1, D] -> the last layer's output, not yet normed."""
        x = self._dropout(x)
        positions = torch.arange(x.shape[1])
        rotation = self._rotary(positions).to(x.device)
        for layer in self.model.layers:
            x = layer(x, rotation)
        return x

    def loss(self, classes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats per token of whole images [B, n]."""
        logits = self(classes, tokens[:, :-1]).flatten(0, 1)
        return F.cross_entropy(logits, tokens.flatten())

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """Write a checkpoint for our decoder, with the codebook in float32."""
        raw = self.config.as_json()
        kind = raw.pop("model_type")
        state = {name: tensor.to(dtype) for name, tensor in self.state_dict().items()}
        state["model.codebook"] = self.model.codebook
        write_folder(folder, kind, raw, state)


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
