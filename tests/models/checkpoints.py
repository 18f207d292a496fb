"""Tiny random checkpoints of every family, saved by transformers, and what it says of a text."""

from pathlib import Path

import numpy as np
import torch
import transformers as tf

VOCABULARY = 300
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,  # logits of order 1 to 10
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
}
ALIKE = {**SIZES, "num_key_value_heads": 4}
FAMILIES = {
    "llama2": lambda: tf.LlamaConfig(**ALIKE),
    "llama3": lambda: tf.LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=True),
    "llama-biased": lambda: tf.LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "mistral": lambda: tf.MistralConfig(**SIZES, sliding_window=None, head_dim=32),
    "mistral-window": lambda: tf.MistralConfig(**SIZES, sliding_window=13),
    "qwen2": lambda: tf.Qwen2Config(**SIZES),
    "qwen2-tied": lambda: tf.Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": lambda: tf.Qwen3Config(**SIZES, head_dim=32),
}
PLAIN = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": None}
OTHERS = {
    "gpt2": lambda: tf.GPT2Config(
        **PLAIN, n_embd=32, n_layer=2, n_head=2, n_positions=256, initializer_range=0.3
    ),
    "gpt-neox": lambda: tf.GPTNeoXConfig(
        **{**SIZES, "num_key_value_heads": None}, use_parallel_residual=True
    ),
    "qwen2-half-windowed": lambda: tf.Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=13, max_window_layers=1
    ),
    "mamba": lambda: tf.MambaConfig(
        **PLAIN, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.3
    ),
}
PLANNED = {  # transformers has a plan that splits them over ranks
    "gpt-neox": OTHERS["gpt-neox"],
    "gemma": lambda: tf.GemmaConfig(**SIZES, head_dim=32, tie_word_embeddings=True),
    "phi3": lambda: tf.Phi3Config(**SIZES),
}


def save(folder: Path, family: str, seed: int = 0, **options: object) -> tf.PreTrainedModel:
    """A random model of the family, written to `folder`; norms and biases are random too."""
    torch.manual_seed(seed)
    model = tf.AutoModelForCausalLM.from_config({**FAMILIES, **OTHERS, **PLANNED}[family]()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "norm" in name + "bias":
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, **options)
    return model


@torch.inference_mode()
def reference(model: tf.PreTrainedModel, tokens: np.ndarray) -> torch.Tensor:
    """Logits [n, V] of one teacher-forced pass."""
    return model(torch.from_numpy(tokens[None]), use_cache=False).logits[0].float()
