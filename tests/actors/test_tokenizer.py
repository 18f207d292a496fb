"""Texts to token ids and back, as transformers does it on the same checkpoint."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from actors.tokenizer import Fast, Slow, TokenizerActor
from models.errors import UnsupportedCheckpoint

TEXTS = ["def f(x):\n    return x", "", "naïve café ☕", "  two  spaces "]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A byte-level tokenizer whose post-processor adds a BOS, saved with padding and truncation."""
    vocabulary = {"<s>": 0, "</s>": 1}
    vocabulary |= {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 2)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    set_config(tmp_path)
    return tmp_path


def set_config(folder: Path, **settings: object) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_encodes_as_transformers_does(checkpoint):
    fast = TokenizerActor(str(checkpoint))
    assert isinstance(fast._codec, Fast)
    tokens = fast.encode_batch(TEXTS)
    assert tokens == Slow(str(checkpoint)).encode(TEXTS)
    assert all(row[0] == 0 for row in tokens)
    assert fast.decode_batch(tokens) == TEXTS
    assert fast.decode_batch(tokens) == Slow(str(checkpoint)).decode(tokens)


def test_a_token_is_spelled_on_its_own_special_ones_too(checkpoint):
    fast, slow = TokenizerActor(str(checkpoint)), Slow(str(checkpoint))
    tokens = fast.encode_batch([" ☕"])[0]
    spelled = [fast.spell(token) for token in tokens]
    assert spelled == ["<s>", " ", *["\ufffd"] * 3]
    assert spelled == [slow.spell(token) for token in tokens]


def test_settings_beside_the_tokenizer_are_heeded(checkpoint):
    set_config(checkpoint, add_bos_token=True)
    assert isinstance(TokenizerActor(str(checkpoint))._codec, Slow)


def test_nothing_of_nothing(checkpoint):
    actor = TokenizerActor(str(checkpoint))
    assert actor.encode_batch([]) == []
    assert actor.decode_batch([]) == []
    assert actor.decode_batch([[]]) == [""]


def test_a_folder_without_a_tokenizer_is_told(tmp_path):
    with pytest.raises(UnsupportedCheckpoint, match="has no tokenizer"):
        TokenizerActor(str(tmp_path))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_file_is_told(checkpoint, name):
    (checkpoint / name).write_text("{")
    with pytest.raises(UnsupportedCheckpoint, match=name):
        TokenizerActor(str(checkpoint))
