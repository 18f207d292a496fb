"""Arrays (.npz, .npy) and pictures in files, as sources of samples."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.storage import storage
from cluster.storage.storage import FileInfo
from pipelines.errors import InvalidInput
from pipelines.evaluate.pictures import decode, from_array
from pipelines.evaluate.samples import Images, Ints, Samples, Source, label_text

Array = NDArray[Any]
NAMES = ("images", "labels", "tokens")


def arrays_source(url: str, files: Sequence[FileInfo]) -> Source:
    """.npz files with `images`, `labels`, `tokens` (any of them); .npy files with one of images
    [N, H, W], [N, H, W, C] or tokens [N, L].

    Raises:
        InvalidInput: a file cannot be read, or the arrays do not fit each other.
    """
    parts = [_read(file) for file in files]
    names = {tuple(sorted(part)) for part in parts}
    if len(names) > 1:
        raise InvalidInput(f"the files of {url!r} hold different arrays: {sorted(names)}")
    try:
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    except ValueError as error:
        raise InvalidInput(f"the arrays of {url!r} do not fit each other: {error}") from error
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise InvalidInput(f"the arrays of {url!r} have different lengths: {lengths}")
    return Source(
        url=url,
        num_rows=next(iter(lengths.values())),
        take=lambda rows: _take(arrays, rows, url),
        labels=_labels(arrays.get("labels")),
    )


def pictures_source(url: str, files: Sequence[FileInfo]) -> Source:
    """Pictures; those in folders have the folder's name as their label."""
    folders = [file.name.rpartition("/")[0].rpartition("/")[2] for file in files]
    labels = tuple(folders) if all(folders) else None

    def take(rows: Ints) -> Samples:
        chosen = [files[i] for i in rows]
        return Samples(
            url=url,
            num_rows=len(rows),
            images=decode((file.name, storage.read_bytes(file.url)) for file in chosen),
            labels=None if labels is None else tuple(labels[i] for i in rows),
        )

    return Source(url=url, num_rows=len(files), take=take, labels=labels)


def _read(file: FileInfo) -> dict[str, Array]:
    try:
        found = np.load(io.BytesIO(storage.read_bytes(file.url)), allow_pickle=False)
        arrays = dict(found) if isinstance(found, Mapping) else {_kind(found): found}
    except (ValueError, EOFError, OSError) as error:
        raise InvalidInput(f"{file.url} holds no arrays that can be read: {error}") from error
    known = {name: array for name, array in arrays.items() if name in NAMES}
    if not known:
        held = ", ".join(arrays) or "nothing"
        raise InvalidInput(f"{file.url} holds {held}: arrays named {', '.join(NAMES)} are needed")
    return known


def _kind(array: Array) -> str:
    whole = np.issubdtype(array.dtype, np.integer)
    return "tokens" if array.ndim == 2 and whole else "images"


def _take(arrays: Mapping[str, Array], rows: Ints, url: str) -> Samples:
    part = {name: array[rows] for name, array in arrays.items()}
    return Samples(
        url=url,
        num_rows=len(rows),
        images=_images(part.get("images"), url),
        labels=_labels(part.get("labels")),
        tokens=_tokens(part.get("tokens"), url),
    )


def _images(array: Array | None, url: str) -> Images | None:
    return None if array is None else from_array(array, f"`images` of {url!r}")


def _labels(array: Array | None) -> tuple[str, ...] | None:
    return None if array is None else tuple(label_text(value) for value in array.tolist())


def _tokens(array: Array | None, url: str) -> tuple[Ints, ...] | None:
    if array is None:
        return None
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        found = f"{array.dtype} of shape {list(array.shape)}"
        raise InvalidInput(f"`tokens` of {url!r} are {found}: whole numbers [N, L] are needed")
    return tuple(array.astype(np.int64))
