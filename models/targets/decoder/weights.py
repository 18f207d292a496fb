"""A decoder's weights: names and shapes in a checkpoint, and the conversion to our layout.

Query, key and value matrices are stacked, and so are gate and up. The two halves of a head's
rotated dimensions are interleaved, so a rotation is one complex product. Query heads are reordered
from [Hkv, G] to [G, Hkv], as attention.py expects. G: query heads per key head.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from models.compute.linear import Linear, Scratch, make_linear
from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.inputs import CODEBOOK, EMBEDDING, input_shapes, read_inputs

Make = Callable[[torch.Tensor, torch.Tensor | None], Linear]
Read = Callable[[str], torch.Tensor]  # a checkpoint's tensor of this name
QUERY, KEY, VALUE = (f"self_attn.{letter}_proj" for letter in "qkv")
OUT = "self_attn.o_proj"
NORM, HEAD = "model.norm.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block. Norms are float32 and contain the factor √D; `qk_norm` [Hq + Hkv, head_dim]."""

    attention_norm: torch.Tensor
    qkv: Linear
    qk_norm: torch.Tensor | None
    out: Linear
    mlp_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """All of a decoder's parameters, ready to run on one device."""

    embedding: torch.Tensor  # [input ids, width]
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    head: Linear
    project: Linear | None = None  # from vectors to inputs
    codes: torch.Tensor | None = None  # [V, C] float32: what tokens stand for in vectors


def shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of such a checkpoint, by Hugging Face's names."""
    wanted = {**input_shapes(config), NORM: (config.width,)}
    if not config.tied:
        wanted[HEAD] = (config.vocab_size, config.width)
    for index in range(config.num_layers):
        for name, shape in layer_shapes(config).items():
            wanted[f"model.layers.{index}.{name}"] = shape
    return wanted


def layer_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a block's tensors, by their names below the block."""
    width, inner = config.width, config.inner_width
    heads, kv_heads = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    matrices = {
        QUERY: (heads, width, config.qkv_bias),
        KEY: (kv_heads, width, config.qkv_bias),
        VALUE: (kv_heads, width, config.qkv_bias),
        OUT: (width, heads, config.out_bias),
        "mlp.gate_proj": (inner, width, config.mlp_bias),
        "mlp.up_proj": (inner, width, config.mlp_bias),
        "mlp.down_proj": (width, inner, config.mlp_bias),
    }
    wanted: dict[str, tuple[int, ...]] = {}
    for name, (outputs, inputs, biased) in matrices.items():
        wanted[f"{name}.weight"] = (outputs, inputs)
        if biased:
            wanted[f"{name}.bias"] = (outputs,)
    wanted |= {"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)}
    if config.qk_norm:
        wanted["self_attn.q_norm.weight"] = wanted["self_attn.k_norm.weight"] = (config.head_dim,)
    return wanted


def assemble(
    config: DecoderConfig,
    read: Read,
    *,
    dtype: torch.dtype,
    device: torch.device,
    kernels: bool = True,
) -> Weights:
    """Our weights from a checkpoint's, one layer at a time; for `kernels` see `make_linear`."""
    make = partial(make_linear, scratch=Scratch(), kernels=kernels)

    def get(name: str) -> torch.Tensor:
        return read(name).to(device=device, dtype=dtype)

    table, project = read_inputs(config, lambda name: read(name).to(device))
    embedding = table.to(dtype)
    head = embedding if config.tied else get(HEAD)
    return Weights(
        embedding=embedding,
        layers=tuple(
            read_layer(config, partial(_below, get, f"model.layers.{index}"), make)
            for index in range(config.num_layers)
        ),
        norm=norm_weight(get(NORM)),
        head=make(head, None),
        project=project,
        codes=None if project is None else read(CODEBOOK).float().to(device),
    )


def _below(get: Read, prefix: str, name: str) -> torch.Tensor:
    return get(f"{prefix}.{name}")


def read_layer(config: DecoderConfig, get: Read, make: Make) -> Layer:
    """A block of our layout; `get` reads its tensors by their names below the block."""

    def stacked(biased: bool, *names: str) -> Linear:
        def stack(kind: str) -> torch.Tensor:
            return torch.cat([_reordered(config, name, get(f"{name}.{kind}")) for name in names])

        return make(stack("weight"), stack("bias") if biased else None)

    out = _regroup(get(f"{OUT}.weight").t(), config).t()
    return Layer(
        attention_norm=norm_weight(get("input_layernorm.weight")),
        qkv=stacked(config.qkv_bias, QUERY, KEY, VALUE),
        qk_norm=_qk_norm(config, get) if config.qk_norm else None,
        out=make(out.contiguous(), get(f"{OUT}.bias") if config.out_bias else None),
        mlp_norm=norm_weight(get("post_attention_layernorm.weight")),
        gate_up=stacked(config.mlp_bias, "mlp.gate_proj", "mlp.up_proj"),
        down=stacked(config.mlp_bias, "mlp.down_proj"),
    )


def _qk_norm(config: DecoderConfig, get: Read) -> torch.Tensor:
    heads = {"q_norm": config.num_heads, "k_norm": config.num_kv_heads}
    norms = {name: norm_weight(get(f"self_attn.{name}.weight")) for name in heads}
    return torch.cat(
        [interleave(norms[name], config.head_dim).expand(heads[name], -1) for name in heads]
    )


def norm_weight(weight: torch.Tensor) -> torch.Tensor:
    return weight.float() * math.sqrt(len(weight))


def _reordered(config: DecoderConfig, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A matrix or bias with its rows in our order."""
    if name == QUERY:
        return _regroup(interleave(tensor, config.head_dim), config)
    return interleave(tensor, config.head_dim) if name == KEY else tensor


def _regroup(tensor: torch.Tensor, config: DecoderConfig) -> torch.Tensor:
    """Query heads [Hkv, G] in the order [G, Hkv], from and to [Hq * D, ...]."""
    heads = tensor.reshape(config.num_kv_heads, -1, config.head_dim, *tensor.shape[1:])
    return heads.transpose(0, 1).reshape(tensor.shape)


def interleave(tensor: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows 0, D/2, 1, D/2 + 1, ... of each head, from [H * D, ...]."""
    halves = tensor.view(-1, 2, head_dim // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A random weight, from name and seed, scaled so that activations and logits are of order one.

    Uses numpy, because torch's normal numbers differ between kinds of CPU.
    """
    generator = np.random.default_rng(zlib.crc32(f"{seed} {name}".encode()))
    drawn = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
    if name.endswith("norm.weight"):
        return 1 + 0.1 * drawn
    if len(shape) == 1:
        return 0.1 * drawn
    return drawn if name == EMBEDDING else drawn * shape[1] ** -0.5
