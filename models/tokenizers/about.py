"""Facts about an image target (classes, tokens, order), without loading tensors."""

from dataclasses import dataclass
from pathlib import Path

from models.errors import UnsupportedCheckpoint
from models.store import model_type, read_config
from models.targets.decoder.config import Json, read_configs
from models.tokenizers import OURS, TOKENIZER_FOLDER
from models.tokenizers.grid import GridConfig, GridTokenizer
from models.tokenizers.scales import ScalesConfig, ScaleTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTarget:
    """The prompt is one class, as the id `vocab_size` + class; the output has `num_tokens` tokens.

    `in_order`: the tokens are decided one after the other, so drafting is possible.
    """

    vocab_size: int
    num_classes: int
    num_tokens: int
    in_order: bool
    guidance: float = 1.0  # the default scale, from the checkpoint


def image_target(checkpoint: str | Path) -> ImageTarget | None:
    """The facts about the folder's target; None if it is not an image target.

    Raises:
        UnsupportedCheckpoint: config.json is missing, or there is no matching tokenizer.
    """
    folder = Path(checkpoint)
    raw, generation = read_configs(folder)
    if not str(raw.get("model_type")).startswith(OURS):
        return None
    raw = raw.get("sizes", raw)  # the object in which a student of a next-scale target has them
    sizes = _tokenizer_sizes(folder)
    vocab_size = _whole(raw, "vocab_size", folder)
    if vocab_size != sizes.vocab_size:
        raise UnsupportedCheckpoint(
            f"{folder}: the target has {vocab_size} tokens, its tokenizer {sizes.vocab_size}"
        )
    return ImageTarget(
        vocab_size=vocab_size,
        num_classes=_whole(raw, "num_classes", folder),
        num_tokens=sizes.num_tokens,
        in_order=isinstance(sizes, GridConfig),
        guidance=_suggested(generation, folder),
    )


def _tokenizer_sizes(folder: Path) -> GridConfig | ScalesConfig:
    if not (folder / TOKENIZER_FOLDER).is_dir():
        told = f"a folder {TOKENIZER_FOLDER!r} with its image tokenizer is needed"
        raise UnsupportedCheckpoint(f"{folder} holds an image target alone: {told}")
    kind = model_type(folder / TOKENIZER_FOLDER)
    if kind == GridTokenizer.model_type:
        return read_config(folder / TOKENIZER_FOLDER, GridConfig)
    if kind == ScaleTokenizer.model_type:
        return read_config(folder / TOKENIZER_FOLDER, ScalesConfig)
    told = f"its model_type is {kind!r}"
    raise UnsupportedCheckpoint(f"{folder / TOKENIZER_FOLDER} holds no image tokenizer: {told}")


def _whole(raw: Json, name: str, folder: Path) -> int:
    value = raw.get(name)
    if type(value) is not int or value < 1:
        raise UnsupportedCheckpoint(
            f"{folder}: config.json: {name} is {value!r}; a whole number is needed"
        )
    return value


def _suggested(generation: Json, folder: Path) -> float:
    """The default guidance scale, by the name that transformers uses."""
    value = generation.get("guidance_scale")
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise UnsupportedCheckpoint(
            f"{folder}: generation_config.json: guidance_scale is {value!r}; 0 to 100 is needed"
        )
    return float(value)
