"""The input embeddings of a decoder: a table with one row for each input id.

Text: one row for each token. Images: ids 0 to V - 1 are image tokens, V + k is class k of K, V + K
is the null class; the row of an image token is Linear(codebook[token]), or stored as it is.
Letters: V tokens, K classes, C width of a code, D width of the decoder, n vectors.
"""

from collections.abc import Callable

import torch

from models.compute.linear import Linear, Scratch, make_linear
from models.targets.decoder.config import DecoderConfig

EMBEDDING = "model.embed_tokens.weight"
CODEBOOK, CLASSES = "model.codebook", "model.class_embed.weight"
PROJECT, OFFSET = "model.input_proj.weight", "model.input_proj.bias"


def input_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint that its input embeddings are computed from."""
    grid = config.grid
    if grid is None or grid.code_width is None:
        return {EMBEDDING: (config.input_size, config.width)}
    return {
        CODEBOOK: (config.vocab_size, grid.code_width),
        PROJECT: (config.width, grid.code_width),
        OFFSET: (config.width,),
        CLASSES: (grid.num_classes + 1, config.width),
    }


def read_inputs(
    config: DecoderConfig, read: Callable[[str], torch.Tensor]
) -> tuple[torch.Tensor, Linear | None]:
    """The table [V (+ K + 1), D], and the layer from vectors [n, C] to inputs [n, D], or None.

    The layer computes in float32. Only checkpoints with a codebook have it.
    """
    if EMBEDDING in input_shapes(config):
        return read(EMBEDDING), None
    project = make_linear(read(PROJECT).float(), read(OFFSET).float(), Scratch())
    return torch.cat([project(read(CODEBOOK).float()), read(CLASSES).float()]), project
