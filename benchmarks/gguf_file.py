"""A Llama checkpoint as a GGUF file of 16-bit floats, so that llama.cpp runs the same weights.

Of no use to generate text with: the file has no tokenizer, since the benchmark hands out token ids.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

from models.targets.decoder.config import read_json

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def save_gguf(checkpoint: str, file: Path) -> str:
    """Write the file; returns what the conversion to 16 bits changed, in words."""
    from gguf import GGUFWriter

    config, weights = read_json(Path(checkpoint) / "config.json"), _weights(Path(checkpoint))
    heads = (config["num_attention_heads"], config["num_key_value_heads"])
    writer = GGUFWriter(str(file), "llama")
    _describe(writer, config)
    rounded = 0
    for name, weight in weights.items():
        owner = name.removesuffix(".weight")
        if owner.endswith(("q_proj", "k_proj")):
            weight = _interleaved(weight, heads[owner.endswith("k_proj")])
        half = weight.to(torch.float16)
        rounded += int((half.float() != weight.float()).sum())
        kept = half if weight.dim() > 1 else weight.float()  # llama.cpp wants norms in float32
        writer.add_tensor(f"{_renamed(owner)}.weight", kept.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return f"F16, {rounded} of {sum(w.numel() for w in weights.values())} weights rounded"


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: weight for file in files for name, weight in load_file(file).items()}


def _describe(writer: "GGUFWriter", config: dict[str, object]) -> None:  # noqa: F821
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows [out, in] in llama.cpp's order: the two halves of a head's rotation alternate."""
    out, width = weight.shape
    halves = weight.view(heads, 2, out // heads // 2, width)
    return halves.transpose(1, 2).reshape(out, width)


def _renamed(owner: str) -> str:
    """A module's name in GGUF."""
    if owner in OUTSIDE:
        return OUTSIDE[owner]
    _, _, layer, rest = owner.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}"
