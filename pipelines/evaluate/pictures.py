"""Encoded pictures and arrays of pixels as float images of one shape."""

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import InvalidInput
from pipelines.evaluate.samples import Images

GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")


def decode(pictures: Iterable[tuple[str, bytes]]) -> Images:
    """(name, encoded bytes) of each as [N, channels, height, width] in 0 to 1.

    Grey if all are, else with three channels.

    Raises:
        InvalidInput: one is no picture, or of another size than the first.
    """
    found = [(name, _decode(name, data)) for name, data in pictures]
    channels = max((array.shape[0] for _, array in found), default=1)
    arrays = [np.broadcast_to(array, (channels, *array.shape[1:])) for _, array in found]
    for (name, _), array in zip(found, arrays, strict=True):
        if array.shape != arrays[0].shape:
            sizes = f"{_size(array)} pixels, {found[0][0]} {_size(arrays[0])}"
            raise InvalidInput(f"{name} has {sizes}: images of one size are needed")
    return np.stack(arrays)


def _decode(name: str, data: bytes) -> Images:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode.startswith("I"):
                return np.asarray(picture, dtype=np.float32)[None] / np.float32(65535)
            array = np.asarray(picture.convert("L" if picture.mode in GREY else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidInput(f"{name} is no picture that can be read: {error}") from error
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return planes.astype(np.float32) / np.float32(255)


def from_array(array: NDArray[np.generic], name: str) -> Images:
    """Pixels [N, H, W] or [N, H, W, 1 or 3], bytes or floats in 0 to 1, as images.

    Raises:
        InvalidInput: they are of another shape, type or range.
    """
    planes = array[..., None] if array.ndim == 3 else array
    if planes.ndim != 4 or planes.shape[-1] not in (1, 3):
        accepted = "[N, H, W] or [N, H, W, 1 or 3] is needed"
        raise InvalidInput(f"{name} has the shape {list(array.shape)}: {accepted}")
    if planes.dtype == np.uint8:
        return planes.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    pixels = planes.transpose(0, 3, 1, 2).astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating) or not _within(pixels):
        accepted = "bytes, or numbers from 0 to 1, are needed"
        raise InvalidInput(f"{name} holds {array.dtype} that are no pixels: {accepted}")
    return pixels


def _within(pixels: Images) -> bool:
    return bool(np.isfinite(pixels).all() and (pixels >= 0).all() and (pixels <= 1).all())


def _size(array: Images) -> str:
    return f"{array.shape[2]} x {array.shape[1]}"
