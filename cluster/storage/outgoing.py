"""Checkpoints that are written by URL: on this machine in place, on S3 when they are complete."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.storage import storage
from cluster.storage.checkpoints import is_remote

LAST = "config.json"  # a folder that has it is complete


@contextmanager
def written(url: str) -> Iterator[Path]:
    """A folder of this machine; what is in it at the end of the block is at `url` then.

    Raises StorageError if it cannot be written there.
    """
    if not is_remote(url):
        yield Path(storage.normalize(url))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        yield folder
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for file in sorted(files, key=lambda file: file == folder / LAST):
            storage.upload(file, storage.join(url, file.relative_to(folder).as_posix()))
