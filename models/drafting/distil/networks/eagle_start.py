"""What the training of an EAGLE-3 drafter starts from: a new one for a target, or a stored one.

A drafter as wide as its target has the target's embedding, final norm and output matrix. Embedding
and output matrix stay as they are: with a large vocabulary they would be most of what is trained,
and the texts are too few for them.
Letters: V vocabulary, K tokens that can be drafted, C width of the target, D width.
"""

from dataclasses import replace
from pathlib import Path

import torch

from models.drafting.distil.networks.eagle import EagleNetwork
from models.drafting.distil.networks.named import rows_of
from models.drafting.heads.eagle_head import (
    EMBEDDING,
    FUSE,
    HEAD,
    LAYER,
    NORM,
    EagleConfig,
    EagleHead,
    shapes,
)
from models.drafting.heads.files import target_embedding, target_head, target_norm
from models.targets.decoder.config import DecoderConfig, RotaryConfig

SMALL, LARGE = 0.1, 0.7  # of usual weights: what the layer adds to its input at the start
QUERY, KEY, OUT = (LAYER + f"self_attn.{name}_proj.weight" for name in "qko")
DOWN = LAYER + "mlp.down_proj.weight"


def new_eagle(
    path: Path,
    target: DecoderConfig,
    *,
    width: int,
    depth: int,
    seed: int,
    ids: torch.Tensor | None = None,
) -> EagleNetwork:
    """A drafter of the target in a folder; `ids` [K]: the tokens that it can draft.

    A narrower one has the main directions of the output matrix as embedding and output matrix.
    """
    generator = torch.Generator().manual_seed(seed)
    config = EagleConfig(
        layer=layer_of(target, width),
        draft_vocab_size=target.vocab_size if ids is None else len(ids),
        target_width=target.width,
        taps=default_taps(target.num_layers),
        norm_taps=True,
    )
    tensors = {}
    for name, shape in shapes(config).items():
        normal = torch.randn(shape, generator=generator)
        tensors[name] = torch.ones(shape) if len(shape) == 1 else normal * shape[1] ** -0.5
    tensors[DOWN] *= SMALL
    head = target_head(path).float()
    if width != target.width:
        *_, directions = torch.linalg.svd(head, full_matrices=False)
        tensors[EMBEDDING] = head @ directions[:width].T
        tensors[HEAD] = rows_of(tensors[EMBEDDING], ids)
        tensors[OUT] *= SMALL
        return EagleNetwork(config, tensors, depth, ids=ids)
    tensors[KEY] = tensors[QUERY].clone()  # each position sees itself best, and its token with it
    tensors[OUT] *= LARGE
    tensors[FUSE] *= SMALL
    tensors[FUSE][:, -width:] += torch.eye(width)
    tensors |= _own(path, ids) | {NORM: target_norm(path).float()}
    return EagleNetwork(config, tensors, depth, ids=ids, frozen=(EMBEDDING, HEAD))


def continue_eagle(stored: EagleHead, path: Path, *, depth: int) -> EagleNetwork:
    """A drafter that goes on from a stored one; what is the target's stays as it is."""
    frozen = []
    if stored.config.layer.width == stored.config.target_width:
        own = _own(path, stored.ids)
        frozen = [name for name, tensor in own.items() if torch.equal(stored.tensors[name], tensor)]
    return EagleNetwork(stored.config, stored.tensors, depth, ids=stored.ids, frozen=frozen)


def _own(path: Path, ids: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The target's embedding [V, C], and the rows [K, C] of its output matrix."""
    return {EMBEDDING: target_embedding(path), HEAD: rows_of(target_head(path), ids)}


def layer_of(target: DecoderConfig, width: int) -> DecoderConfig:
    """One layer of `width`, with the target's vocabulary, positions and rotary embedding."""
    head_dim = next(size for size in (64, 32, 16, 8, 4, 2) if width % size == 0)
    heads = width // head_dim
    rotary = target.rotary if target.rotary.kind != "grid" else RotaryConfig()
    return replace(
        target,
        architecture="LlamaForCausalLM",
        width=width,
        inner_width=3 * width,
        num_layers=1,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=head_dim,
        rotary=rotary,
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        qk_norm=False,
        tied=False,
        window=None,
        eos_token_ids=(),
    )


def default_taps(num_layers: int) -> tuple[int, ...]:
    """Three layers: as servers read by default where there are enough, else spread out."""
    if num_layers >= 8:
        return 2, num_layers // 2, num_layers - 3
    return tuple(sorted({min(1, num_layers - 1), num_layers // 2, num_layers - 1}))
