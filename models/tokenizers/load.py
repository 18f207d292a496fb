"""Loads the image tokenizer of a folder."""

from pathlib import Path

from models.errors import UnsupportedCheckpoint
from models.store import load_weights, model_type, read_config
from models.tokenizers import TOKENIZER_FOLDER
from models.tokenizers.grid import GridConfig, GridTokenizer
from models.tokenizers.scales import ScalesConfig, ScaleTokenizer

Tokenizer = GridTokenizer | ScaleTokenizer


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in `folder` or in its subfolder `tokenizer`, in float32.

    Raises:
        UnsupportedCheckpoint: there is no tokenizer; the message gives the reason.
    """
    path = Path(folder)
    path = path / TOKENIZER_FOLDER if (path / TOKENIZER_FOLDER).is_dir() else path
    kind = model_type(path)
    made: Tokenizer
    if kind == GridTokenizer.model_type:
        made = GridTokenizer(read_config(path, GridConfig))
    elif kind == ScaleTokenizer.model_type:
        made = ScaleTokenizer(read_config(path, ScalesConfig))
    else:
        raise UnsupportedCheckpoint(f"{path} holds no image tokenizer: its model_type is {kind!r}")
    load_weights(path, made)
    made.eval().requires_grad_(False)
    return made
