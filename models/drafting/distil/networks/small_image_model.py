"""A small raster model for training as a draft model of an image target.

Letters: B images, N positions (a class and the tokens after it), V vocabulary.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from models.errors import UnsupportedCheckpoint
from models.students.teacher import load_teacher
from models.targets.image_tokens import same_images
from models.training.raster import RasterModel

HEAD_DIMS = (32, 16, 8, 4)  # of a new draft model: the first that divides its width


class SmallImageModel(nn.Module):
    """`RasterModel`, over token ids as the token loop has them."""

    taps: tuple[int, ...] = ()

    def __init__(self, model: RasterModel) -> None:
        super().__init__()
        self.inner = model

    def forward(self, tokens: torch.Tensor, states: torch.Tensor) -> list[torch.Tensor]:
        """One element: logits [B, N, V] for the token one position on.

        Args:
            tokens: [B, N], the first of a row is V + its class.
            states: not read.
        """
        classes = tokens[:, 0] - self.inner.config.vocab_size
        logits: torch.Tensor = self.inner(classes, tokens[:, 1:])
        return [logits.float()]

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """A checkpoint for our decoder."""
        self.inner.save(folder, dtype)


def new_image_model(target: Path, *, width: int | None, seed: int) -> SmallImageModel:
    """One layer with the target's classes, grid and codes.

    With the target's width (None), it starts with the target's input, first layer and output.

    Raises:
        UnsupportedCheckpoint: the target is of another kind, or has no codebook.
    """
    teacher = _read(target)
    width = width or teacher.config.width
    head_dim = next((size for size in HEAD_DIMS if width % size == 0), None)
    if head_dim is None:
        told = f"a width of {width} is not a multiple of {HEAD_DIMS[-1]}, as images need"
        raise UnsupportedCheckpoint(f"draft model of {str(target)!r}: {told}")
    same = width == teacher.config.width
    config = replace(
        teacher.config,
        width=width,
        inner_width=teacher.config.inner_width if same else 3 * width,
        num_layers=1,
        num_heads=teacher.config.num_heads if same else width // head_dim,
    )
    torch.manual_seed(seed)
    model = RasterModel(config, teacher.codebook)
    if same:
        model.load_state_dict({name: teacher.state_dict()[name] for name in model.state_dict()})
    return SmallImageModel(model)


def continue_image_model(start: Path, target: Path) -> SmallImageModel:
    """The draft model in a folder.

    Raises:
        UnsupportedCheckpoint: it is of another kind, or does not fit the target.
    """
    same_images(str(target), str(start))
    return SmallImageModel(_read(start))


def _read(folder: Path) -> RasterModel:
    model = load_teacher(folder)
    if not isinstance(model, RasterModel):
        told = "draft models are trained for targets that generate images token by token"
        raise UnsupportedCheckpoint(f"{str(folder)!r}: {told}")
    return model.train().requires_grad_(True)
