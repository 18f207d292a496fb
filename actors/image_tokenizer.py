"""Classes to token ids, image tokens to pictures, as a checkpoint's own tokenizer draws them.

Beside the data, on CPU. A picture's bytes depend on its tokens alone: each is drawn by itself.
"""

import io
import os
from collections.abc import Sequence as Several
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from cluster.storage.checkpoints import present
from models.errors import UnsupportedCheckpoint
from models.tokenizers.about import image_target
from models.tokenizers.load import Tokenizer, load_tokenizer

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageTokenizerActor:
    """Encodes and decodes batches. A plain class: made remote late, or made within Ray Data."""

    def __init__(self, checkpoint: str) -> None:
        """Raises UnsupportedCheckpoint if the folder is no image target's."""
        checkpoint = present(checkpoint)
        about = image_target(checkpoint)
        if about is None:
            raise UnsupportedCheckpoint(f"{checkpoint!r} holds no image target")
        self.checkpoint, self._about = checkpoint, about

    def start(self) -> dict[str, object]:
        """What a pool is told of it."""
        return {"pid": os.getpid(), "checkpoint": self.checkpoint}

    def ping(self) -> str:
        """Answers while the process lives."""
        return self.checkpoint

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Loaded when it is first needed: classes are encoded without."""
        return load_tokenizer(self.checkpoint)

    def encode_batch(
        self, texts: Several[str], *, add_special_tokens: bool = True
    ) -> list[list[int]]:
        """The token id of each class, which is given by its number; there are no special tokens."""
        return [[self._about.vocab_size + int(text)] for text in texts]

    def decode_batch(self, tokens: Several[Several[int]]) -> list[bytes]:
        """The PNG of each list of token ids."""
        return [png(self._draw(torch.tensor([list(row)]))) for row in tokens]

    def preview(self, tokens: Several[int]) -> bytes:
        """The PNG of an image of which the first tokens are known.

        Of a multi-scale tokenizer, these are the tokens of whole scales.
        """
        with torch.inference_mode():
            return png(self.tokenizer.decode_prefix(torch.tensor([list(tokens)]))[0])

    def _draw(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [1, L] -> [P, H, W] in -1 to 1."""
        with torch.inference_mode():
            return self.tokenizer.decode(tokens)[0]


def png(pixels: torch.Tensor) -> bytes:
    """A picture [P, H, W] in -1 to 1 as PNG; P is 1 (grey), 3 or 4."""
    scaled = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    mode = MODES.get(len(scaled))
    if mode is None:
        raise UnsupportedCheckpoint(f"images of {len(scaled)} channels; 1, 3 or 4 make a PNG")
    rows = scaled[0] if mode == "L" else np.ascontiguousarray(scaled.transpose(1, 2, 0))
    out = io.BytesIO()
    Image.fromarray(rows, mode).save(out, "PNG")
    return out.getvalue()
