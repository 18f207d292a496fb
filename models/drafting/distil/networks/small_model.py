"""A small Llama for training as a draft model; it predicts each next token of a text.

Letters: B texts, N positions, V vocabulary.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.errors import UnsupportedCheckpoint
from models.targets.decoder.config import RASTER, DecoderConfig, is_known, read_configs

WIDEST = 64  # of the heads of a new draft model


class SmallModel(nn.Module):
    """transformers' Llama (or Qwen, or Mistral)."""

    taps: tuple[int, ...] = ()

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model

    def forward(self, tokens: torch.Tensor, states: torch.Tensor) -> list[torch.Tensor]:
        """One element: logits [B, N, V] for the token one position on.

        Args:
            tokens: [B, N].
            states: not read.
        """
        logits: torch.Tensor = self.inner(input_ids=tokens, use_cache=False).logits
        return [logits.float()]

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """A checkpoint in Hugging Face layout."""
        from transformers.utils import logging

        logging.disable_progress_bar()
        copy.deepcopy(self.inner).to("cpu", dtype).save_pretrained(folder)
        for file in folder.glob("*.safetensors"):
            file.chmod(0o644)  # transformers lets only the owner read it


def new_model(target: DecoderConfig, *, width: int, seed: int) -> SmallModel:
    """One layer with tied embeddings and the target's vocabulary, context and end tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    head_dim = next(size for size in (WIDEST, 32, 16, 8, 4, 2) if width % size == 0)
    heads = width // head_dim
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        vocab_size=target.vocab_size,
        max_position_embeddings=target.context_length,
        rope_parameters={"rope_type": "default", "rope_theta": target.rotary.theta},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=list(target.eos_token_ids) or None,
        pad_token_id=None,
    )
    return SmallModel(LlamaForCausalLM(config))


def continue_model(folder: Path) -> SmallModel:
    """The draft model in a folder.

    Raises:
        UnsupportedCheckpoint: it is not of a family that our decoder runs.
    """
    raw, _ = read_configs(folder)
    if not is_known(raw) or raw["model_type"] == RASTER:
        told = (
            f"model_type={raw.get('model_type')!r}; llama, mistral, qwen2 and qwen3 can be trained"
        )
        raise UnsupportedCheckpoint(f"start {str(folder)!r}: {told}")
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    return SmallModel(model)
