"""Files by URL: local paths, file:// and s3://.

A reader sees a file whole or not at all: locally a hidden temporary file is synced to the disk and
renamed (disk.py), on S3 an object appears when its upload is complete (s3.py). A storage service
that does not answer is asked again for a minute (patience.py).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.errors import StorageError
from cluster.storage import disk, s3

COPIED_BYTES = 4 << 20  # at once
SCHEMES = "a local path, file:///folder or s3://bucket/key"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One file of a folder: its URL, its name relative to the folder, its size."""

    url: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Differs whenever a file's content does. `changed`: at this time by the file's clock."""

    name: str
    size_bytes: int
    changed: float


def normalize(url: str) -> str:
    """The one spelling of a URL: an absolute local path, or s3://bucket/key, no final slash."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme not in ("file", "s3"):
        raise StorageError("use", url, f"{scheme}:// is not supported; give {SCHEMES}")
    if separator and scheme == "s3":
        if not rest.strip("/"):
            raise StorageError("use", url, "no bucket is named; give s3://bucket/key")
        return "s3://" + rest.strip("/")
    if not url:
        raise StorageError("use", url, f"it is empty; give {SCHEMES}")
    return str(Path(rest if separator else url).expanduser().absolute())


def is_local(url: str) -> bool:
    """Whether only the machine that holds the disk can reach it."""
    return "://" not in url


def join(url: str, *names: str) -> str:
    """The URL of something inside a folder."""
    return "/".join([url.rstrip("/"), *names])


def file_size(url: str) -> int | None:
    """The bytes of a file, None if there is none (or it is a folder)."""
    with _explained("look at", url):
        if is_local(url):
            return Path(url).stat().st_size if Path(url).is_file() else None
        return s3.size(url)


def version(url: str) -> Version:
    """Of a file as it is now, without reading it."""
    with _explained("look at", url):
        if not is_local(url):
            name, size_bytes = s3.version(url)
            return Version(name=name, size_bytes=size_bytes, changed=0.0)
        found = Path(url).stat()
        times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
        name = f"{found.st_size} {times} {found.st_ino} {found.st_dev}"
        changed = max(found.st_mtime, found.st_ctime)
        return Version(name=name, size_bytes=found.st_size, changed=changed)


def is_folder(url: str) -> bool:
    """Whether it is a folder of this machine; S3 has none."""
    return is_local(url) and Path(url).is_dir()


def list_files(url: str) -> list[FileInfo]:
    """All files in a folder and its folders, by name; none if there is no such folder."""
    with _explained("list", url):
        found = _list_local(url) if is_local(url) else _list_s3(url)
        return sorted(found, key=lambda info: info.name)


def open_input(url: str) -> BinaryIO:
    """A file to read and seek in."""
    with _explained("read", url):
        return Path(url).open("rb") if is_local(url) else s3.open_input(url)


def read_bytes(url: str) -> bytes:
    """A whole file."""
    with _explained("read", url):
        return Path(url).read_bytes() if is_local(url) else s3.read(url)


def check_writable(url: str) -> None:
    """Raise StorageError if a local file of this name could not be written; S3 is not asked."""
    if is_local(url):
        try:
            disk.try_to_write(Path(url))
        except OSError as error:
            raise StorageError("write", url, error.strerror or error) from error


def publish(url: str, data: bytes) -> None:
    """Write a file, replacing what was there, in one instant."""
    with _explained("write", url):
        if is_local(url):
            disk.publish(Path(url), data)
        else:
            s3.publish(url, data)


def upload(file: Path, url: str) -> None:
    """Copy a file of this machine, which may be large; replaces what was there, in one instant.

    Raises FileNotFoundError if there is no such file.
    """
    if is_local(url):
        publish(url, file.read_bytes())
        return
    try:
        with _explained("write", url):
            s3.upload(file, url)
    except StorageError:
        if not file.exists():
            raise FileNotFoundError(file) from None
        raise


def download(url: str, file: Path) -> None:
    """Copy a file, which may be large, to one of this machine."""
    with open_input(url) as source, file.open("wb") as made:
        shutil.copyfileobj(source, made, COPIED_BYTES)


def create(url: str, data: bytes) -> bool:
    """Write a file in one instant unless there is one already; False if there is."""
    with _explained("write", url):
        try:
            if is_local(url):
                disk.create(Path(url), data)
            else:
                s3.create(url, data)
        except FileExistsError:
            return False
        return True


def swap(url: str, old: bytes | None, new: bytes | None) -> bool:
    """Change a small file's content from `old` to `new` (None: there is no file) in one instant.

    False if its content is not `old` by now; of several callers one at most succeeds.
    """
    with _explained("write", url):
        return disk.swap(Path(url), old, new) if is_local(url) else s3.swap(url, old, new)


def remove(url: str) -> None:
    """Delete a file; it may be gone already."""
    with _explained("remove", url):
        if is_local(url):
            Path(url).unlink(missing_ok=True)
        else:
            s3.remove(url)


def remove_leftovers(url: str) -> None:
    """Delete the temporary files that writers killed in a folder left behind (S3 leaves none)."""
    if is_local(url):
        with _explained("clean", url):
            disk.remove_leftovers(Path(url))


def _list_local(url: str) -> Iterator[FileInfo]:
    root = Path(url)
    for folder, _, names in os.walk(root, followlinks=True, onerror=_raise):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):  # a temporary file that is gone by now
                name, size_bytes = path.relative_to(root).as_posix(), path.stat().st_size
                yield FileInfo(url=str(path), name=name, size_bytes=size_bytes)


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _list_s3(url: str) -> Iterator[FileInfo]:
    for place, name, size_bytes in s3.files(url):
        yield FileInfo(url=place, name=name, size_bytes=size_bytes)


@contextmanager
def _explained(action: str, url: str) -> Iterator[None]:
    """Turn whatever a file system or an S3 client raises into one clear error."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise StorageError(action, url, "it does not exist") from error
    except PermissionError as error:
        raise StorageError(action, url, "permission denied") from error
    except OSError as error:
        raise StorageError(action, url, error.strerror or error) from error
    except Exception as error:
        if not type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp", "s3fs")):
            raise
        raise StorageError(action, url, error) from error
