"""What a checkpoint's configuration bounds: its vocabulary and its context. Loads no model."""

from dataclasses import dataclass
from pathlib import Path

from models.targets.decoder.config import Json, is_known, parse_config, read_configs

CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of a text model; None where its config.json leaves a number to the code that reads it."""

    vocab_size: int | None
    context_length: int | None


def read_limits(checkpoint: str | Path) -> Limits:
    """Those of the checkpoint in a folder.

    Raises:
        UnsupportedCheckpoint: there is none; the message names the file or field.
    """
    raw, generation = read_configs(Path(checkpoint))
    if is_known(raw):
        config = parse_config(raw, generation)
        return Limits(vocab_size=config.vocab_size, context_length=config.context_length)
    text = raw.get("text_config")
    text = text if isinstance(text, dict) else raw
    contexts = (_whole(text, name) for name in CONTEXT_NAMES)
    return Limits(
        vocab_size=_whole(text, "vocab_size"), context_length=next(filter(None, contexts), None)
    )


def _whole(raw: Json, name: str) -> int | None:
    value = raw.get(name)
    return value if type(value) is int and value > 0 else None
