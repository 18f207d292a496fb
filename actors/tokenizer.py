"""Texts to token ids and back, as a checkpoint's own tokenizer does it; beside the data, on CPU.

Special tokens are those that the checkpoint's tokenizer adds by default (often a BOS, often none);
to the text of a chat template, which holds its own, none are added. Decoding leaves special tokens
out.
"""

import os
from collections.abc import Sequence as Several
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cluster.storage.checkpoints import present
from models.errors import UnsupportedCheckpoint
from models.targets.decoder.config import read_json

# What a folder with a tokenizer has, one of them at least.
FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tokenizer_config.json",
)


class TokenizerActor:
    """Encodes and decodes batches. A plain class: made remote late, or made within Ray Data."""

    def __init__(self, checkpoint: str) -> None:
        """Raises UnsupportedCheckpoint if the folder has no tokenizer."""
        self.checkpoint = checkpoint = present(checkpoint)
        file = Path(checkpoint) / "tokenizer.json"
        self._codec: Fast | Slow
        if file.exists() and not _adds_by_settings(Path(checkpoint)):
            self._codec = Fast(checkpoint, file)
        else:
            self._codec = Slow(checkpoint)

    def start(self) -> dict[str, object]:
        """What a pool is told of it."""
        return {"pid": os.getpid(), "checkpoint": self.checkpoint}

    def ping(self) -> str:
        """Answers while the process lives."""
        return self.checkpoint

    def encode_batch(
        self, texts: Several[str], *, add_special_tokens: bool = True
    ) -> list[list[int]]:
        """Token ids of each text."""
        return self._codec.encode(list(texts), add_special_tokens) if len(texts) else []

    def decode_batch(self, tokens: Several[Several[int]]) -> list[str]:
        """The text of each list of token ids."""
        return self._codec.decode([[int(t) for t in row] for row in tokens])

    def spell(self, token: int) -> str:
        """A token's own text, special tokens included; U+FFFD for a part of a character."""
        return self._codec.spell(token)


class Fast:
    """tokenizer.json alone: no transformers, a second to load."""

    def __init__(self, checkpoint: str, file: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more precise
            told = f"{checkpoint!r}: tokenizer.json cannot be read: {error}"
            raise UnsupportedCheckpoint(told) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def encode(self, texts: list[str], special: bool = True) -> list[list[int]]:
        found = self._tokenizer.encode_batch(texts, add_special_tokens=special)
        return [encoding.ids for encoding in found]

    def decode(self, tokens: list[list[int]]) -> list[str]:
        return list(self._tokenizer.decode_batch(tokens))

    def spell(self, token: int) -> str:
        return str(self._tokenizer.decode([token], skip_special_tokens=False))


class Slow:
    """Any other tokenizer, through transformers."""

    def __init__(self, checkpoint: str) -> None:
        if not any((Path(checkpoint) / name).exists() for name in FILES):
            told = "tokenizer.json is missing; the folder that the model came in has it"
            raise UnsupportedCheckpoint(f"{checkpoint!r} has no tokenizer: {told}")
        from transformers import AutoTokenizer  # seconds to import, so only where it is needed

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise UnsupportedCheckpoint(f"{checkpoint!r} has no tokenizer: {error}") from error

    def encode(self, texts: list[str], special: bool = True) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=special)["input_ids"]
        return ids

    def decode(self, tokens: list[list[int]]) -> list[str]:
        texts: list[str] = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return texts

    def spell(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))


def _adds_by_settings(checkpoint: Path) -> bool:
    """Whether settings beside tokenizer.json say which special tokens are added."""
    file = checkpoint / "tokenizer_config.json"
    settings = read_json(file) if file.exists() else {}
    return any(settings.get(name) is not None for name in ("add_bos_token", "add_eos_token"))
