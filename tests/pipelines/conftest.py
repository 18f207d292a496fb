"""A tiny target and a draft near it, both with a tokenizer of bytes."""

from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.generate.inprocess import write_prompts


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of `target`, `draft`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("checkpoints")
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*symbols, "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    ends = {"eos_token_id": 256, "bos_token_id": None, "max_position_embeddings": 256}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=257, **sizes, **ends))
    for name in ("target", "draft"):
        model.save_pretrained(root / name)
        tokenizer.save(str(root / name / "tokenizer.json"))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.03 * torch.randn_like(parameter)
    return {name: str(root / name) for name in ("target", "draft")}


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    """A file of 23 prompts."""
    return str(write_prompts(tmp_path / "in" / "prompts.jsonl", 23))
