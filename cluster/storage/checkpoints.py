"""Checkpoints on S3: fetched once to each node's disk, verified, and used from there.

`fetched(url)` gives a folder whose name tells where it came from, and which version:

    CACHE/paceline-s3/BUCKET/KEY@VERSION

So a process on another node, which gets this name in its configuration, can fetch the same version
to a disk of its own (`present`). Old versions stay until somebody deletes them.
"""

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path, PurePosixPath

from cluster.errors import StorageError
from cluster.storage import s3, storage

CACHE = "PACELINE_CACHE"  # the variable that names the folder; default: ~/.cache/paceline
MARK = "paceline-s3"
# Files of a checkpoint. Pickles are never fetched.
SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja")
CHUNK_BYTES = 8 << 20
VERSION_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """An object of a checkpoint; `etag` changes with its content."""

    url: str
    name: str
    size_bytes: int
    etag: str


def is_remote(path: str) -> bool:
    """Whether it is a URL of S3."""
    return path.startswith("s3://")


def fetched(path: str) -> str:
    """The folder on this node with the checkpoint at `path`; a local path stays as it is.

    Raises StorageError: it cannot be read, holds no files of a checkpoint, or arrives damaged.
    """
    if not is_remote(path):
        return path
    url = storage.normalize(path)
    files = remote_files(url)
    return str(_fetch(url, files, version_of(files)))


def file_here(url: str, folder: Path) -> Path:
    """One file of S3 as a copy in `folder`, verified; a local file where it is.

    Raises StorageError: there is none, it cannot be read, or it arrives damaged.
    """
    if not is_remote(url):
        return Path(storage.normalize(url))
    found, name = storage.version(url), url.rpartition("/")[2]
    file = RemoteFile(url=url, name=name, size_bytes=found.size_bytes, etag=found.name)
    _download(file, folder / name)
    return folder / name


def present(path: str) -> str:
    """The same for a folder that `fetched` named on another node; other paths stay as they are.

    Raises StorageError as `fetched` does, and if S3 has another version by now.
    """
    if f"/{MARK}/" not in path:
        return fetched(path)
    told = path.partition(f"/{MARK}/")[2]
    key, _, version = told.rpartition("@")
    place = _place(key, version)
    if place.is_dir():
        return str(place)
    url = f"s3://{key}"
    files = remote_files(url)
    if version_of(files) != version:
        raise StorageError("read", url, "it has changed since this run began; start it again")
    return str(_fetch(url, files, version))


def remote_files(url: str) -> list[RemoteFile]:
    """The files of a checkpoint on S3, by name.

    Raises StorageError: there are none, or a name leads out of the folder.
    """
    found = [f for f in storage.list_files(url) if f.name.endswith(SUFFIXES)]
    if not found:
        raise StorageError("read", url, "it holds no files of a checkpoint")
    for file in found:
        parts = PurePosixPath(file.name).parts
        if file.name.startswith("/") or "\\" in file.name or {"..", "."} & set(parts):
            raise StorageError("read", url, f"the name {file.name!r} leads out of the folder")
    return [
        RemoteFile(
            url=f.url, name=f.name, size_bytes=f.size_bytes, etag=storage.version(f.url).name
        )
        for f in found
    ]


def version_of(files: Sequence[RemoteFile]) -> str:
    """Changes with the name, size or content of any file."""
    told = "\0".join(f"{file.name}\0{file.size_bytes}\0{file.etag}" for file in files)
    return hashlib.blake2b(told.encode(), digest_size=VERSION_BYTES).hexdigest()


def cache_folder() -> Path:
    """What is fetched on this node, and can be fetched again."""
    root = os.environ.get(CACHE) or Path.home() / ".cache" / "paceline"
    return Path(root).absolute()


def _place(key: str, version: str) -> Path:
    return cache_folder() / MARK / f"{key}@{version}"


def _fetch(url: str, files: Sequence[RemoteFile], version: str) -> Path:
    """Of several processes of a node one fetches, the others wait for it."""
    place = _place(url.removeprefix("s3://"), version)
    if place.is_dir():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _locked(place.with_name(f".{place.name}.lock")):
            if not place.is_dir():
                _fill(place, files)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError("keep", f"{url} in {place}", error.strerror or error) from error
    return place


def _fill(place: Path, files: Sequence[RemoteFile]) -> None:
    """A folder gets its name when all its files are there."""
    for left in place.parent.glob(f".{place.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    new = place.with_name(f".{place.name}.{uuid.uuid4().hex}.tmp")
    for file in files:
        target = new / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(file, target)
    new.rename(place)


def _download(file: RemoteFile, target: Path) -> None:
    """Write one file and compare it with what S3 says of it."""
    in_parts = "-" in file.etag
    check = Etag(repeat(s3.part_size(file.url)) if in_parts else None)
    size = 0
    with storage.open_input(file.url) as source, target.open("wb") as out:
        while chunk := source.read(CHUNK_BYTES):
            out.write(chunk)
            check.add(chunk)
            size += len(chunk)
    told, found = file.etag.strip('"'), check.value
    if size == file.size_bytes and (found == told or not s3.is_digest(file.url)):
        return
    if size == file.size_bytes and in_parts:  # parts need not have one size
        found = _digest(target, s3.part_sizes(file.url, int(told.rpartition("-")[2])))
    if size != file.size_bytes or found != told:
        arrived = f"{size} bytes, digest {found} arrived of {file.size_bytes}, {told}"
        raise StorageError("read", file.url, arrived)


def _digest(path: Path, sizes: Sequence[int]) -> str:
    check = Etag(sizes)
    with path.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            check.add(chunk)
    return check.value


class Etag:
    """The ETag of an object: the MD5 of its content, or of the MD5s of its parts.

    Source: Amazon S3 User Guide, "Checking object integrity".
    """

    def __init__(self, part_sizes: Iterable[int] | None) -> None:
        """`part_sizes`: in bytes, of an object that was uploaded in parts."""
        self._sizes = None if part_sizes is None else iter(part_sizes)
        self._parts: list[bytes] = []
        self._md5, self._left, self._begun = _md5(), 0, False

    def add(self, data: bytes) -> None:
        """The next bytes."""
        if self._sizes is None:
            self._md5.update(data)
            return
        while data:
            if not self._begun:
                self._left, self._begun = next(self._sizes, len(data)), True
            now, data = data[: self._left], data[self._left :]
            self._md5.update(now)
            self._left -= len(now)
            if self._left == 0:
                self._close()

    @property
    def value(self) -> str:
        """Of all bytes so far."""
        if self._sizes is None:
            return self._md5.hexdigest()
        if self._begun:
            self._close()
        return f"{_md5(b''.join(self._parts)).hexdigest()}-{len(self._parts)}"

    def _close(self) -> None:
        self._parts.append(self._md5.digest())
        self._md5, self._begun = _md5(), False


def _md5(data: bytes = b"") -> "hashlib._Hash":
    return hashlib.md5(data, usedforsecurity=False)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
