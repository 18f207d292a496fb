"""A small decoder's configuration, for tests that need any."""

from models.targets.decoder.config import DecoderConfig

CONFIG = DecoderConfig(
    architecture="LlamaForCausalLM",
    vocab_size=50,
    width=32,
    inner_width=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    context_length=256,
)
