"""An EAGLE-3 drafter as it is stored: its sizes, its tensors and the tokens it can draft.

One layer reads, for each position i, the embedding of token i + 1 and the target's hidden states
after token i, and predicts token i + 2. Beyond the verified tokens it reads its own states.
Source: EAGLE-3, Li et al. 2025, arXiv 2503.01840. `norm_taps` and `norm_output` are EAGLE-3.1's.
Letters: V vocabulary, K tokens that can be drafted, D width of the drafter, n taps of width T.
"""

from dataclasses import dataclass

import torch

from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.weights import layer_shapes

LAYER = "layer."
EMBEDDING, FUSE, NORM, HEAD = "embed_tokens.weight", "fc.weight", "norm.weight", "lm_head.weight"
HIDDEN_NORM, FUSED_NORM = "layer.hidden_norm.weight", "input_norm.weight"
PROJECTIONS = tuple(f"self_attn.{letter}_proj.weight" for letter in "qkv")


@dataclass(frozen=True, slots=True, kw_only=True)
class EagleConfig:
    """The sizes and variants of one drafter.

    `layer`: of its only layer; the vocabulary is the target's. `taps`: the hidden states that it
    reads, numbered as in `Readout`. `norm_before_residual`: the layer adds to the normalised state.
    `norm_before_fc`: one norm over all taps together; `norm_taps`: one for each of them.
    `norm_output`: its next step reads its state after the final norm.
    """

    layer: DecoderConfig
    draft_vocab_size: int
    target_width: int
    taps: tuple[int, ...]
    norm_before_residual: bool = False
    norm_before_fc: bool = False
    norm_taps: bool = False
    norm_output: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EagleHead:
    """Configuration and tensors, by the names of `shapes`; `ids` [K]: the target's ids, or all."""

    config: EagleConfig
    tensors: dict[str, torch.Tensor]
    ids: torch.Tensor | None = None


def shapes(config: EagleConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors."""
    layer, width = config.layer, config.layer.width
    fused = len(config.taps) * config.target_width
    wanted: dict[str, tuple[int, ...]] = {
        EMBEDDING: (layer.vocab_size, width),
        FUSE: (width, fused),
        HIDDEN_NORM: (width,),
        NORM: (width,),
        HEAD: (config.draft_vocab_size, width),
    }
    for name, shape in layer_shapes(layer).items():
        wanted[LAYER + name] = (shape[0], 2 * width) if name in PROJECTIONS else shape
    if config.norm_before_fc:
        wanted[FUSED_NORM] = (fused,)
    if config.norm_taps:
        wanted |= {tap_norm(index): (config.target_width,) for index in range(len(config.taps))}
    return wanted


def tap_norm(index: int) -> str:
    """The name of a tap's norm."""
    return f"fc_norm.{index}.weight"
