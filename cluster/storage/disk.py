"""Files of this machine: written in one instant, safe on the disk before they get their name."""

import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".tmp"
LOCK_S = 10.0  # how long to wait for another process that changes a file right now


def publish(path: Path, data: bytes) -> None:
    """Write a file, replacing what was there."""
    temporary = _write_temporary(path, data)
    temporary.replace(path)
    _sync_folder(path.parent)


def create(path: Path, data: bytes) -> None:
    """Write a file; raises FileExistsError if there is one.

    A hard link is the one local operation that is atomic and fails where a file exists.
    """
    temporary = _write_temporary(path, data)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    _sync_folder(path.parent)


def swap(path: Path, old: bytes | None, new: bytes | None) -> bool:
    """Give a file the content `new` (None: delete it) if it has the content `old` (None: no file).

    False if it has another content by now. All callers exclude each other by a lock of the folder,
    which is held as briefly as can be: a process that is suspended meanwhile keeps it.
    """
    if _content(path) != old:
        return False
    temporary = None if new is None else _write_temporary(path, new)
    with _locked(path.parent):
        same = _content(path) == old
        if same and temporary is None:
            path.unlink(missing_ok=True)
        elif same and temporary is not None:
            try:
                temporary.replace(path)
            except FileNotFoundError:  # another run took it for a leftover
                return False
    if same:
        _sync_folder(path.parent)
    elif temporary is not None:
        temporary.unlink(missing_ok=True)
    return same


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed writers left behind."""
    for path in folder.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def try_to_write(path: Path) -> None:
    """Raise OSError unless a file could get this name; leaves nothing behind.

    A file without a name is made in the nearest folder that is there, as permissions alone do not
    tell: root may write anywhere, but not on every file system.
    """
    folder = next(parent for parent in path.parents if parent.exists())
    with tempfile.TemporaryFile(dir=folder):
        pass


def _content(path: Path) -> bytes | None:
    """A file's content; None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write_temporary(path: Path, data: bytes) -> Path:
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; their names survive a power failure, too."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; some file systems cannot say so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process; network disks may know no locks."""
    _make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    until = time.monotonic() + LOCK_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise OSError("another process, maybe a suspended one, keeps it locked") from None
            time.sleep(0.01)
        except OSError:
            return None
