"""Digests of whole files: read once, then remembered as long as a file stays what it is.

A digest is kept in the user's cache folder (`~/.cache/paceline/digests`, or below XDG_CACHE_HOME),
under a name made of the file's path, size, times and inode. A file that was changed a moment ago is
not remembered: its time may stay the same when it is changed again.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from cluster import storage
from cluster.errors import StorageError

SMALL = 1 << 20  # bytes: read again rather than remembered
FRESH_S = 5.0
THREADS = min(8, os.cpu_count() or 1)


def digests(paths: Iterable[Path]) -> list[str]:
    """Of each file's content, several at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(file_digest, paths))


def file_digest(path: Path) -> str:
    """Of a file's content."""
    before = path.stat()
    place = _remembered(path, before)
    with suppress(OSError):
        found = place.read_text()
        if len(found) == 32:
            return found
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, _new).hexdigest()
    fresh = time.time() - max(before.st_mtime, before.st_ctime) < FRESH_S
    if before.st_size >= SMALL and not fresh and _key(path, path.stat()) == _key(path, before):
        with suppress(StorageError):  # no place to remember it
            storage.publish(str(place), digest.encode())
    return digest


def _new() -> "hashlib._Hash":
    return hashlib.blake2b(digest_size=16)


def _key(path: Path, found: os.stat_result) -> str:
    times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
    return f"1 {path.absolute()} {found.st_size} {times} {found.st_ino} {found.st_dev}"


def _remembered(path: Path, found: os.stat_result) -> Path:
    """Where the digest of a file in this state is kept."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    name = hashlib.blake2b(_key(path, found).encode(), digest_size=16).hexdigest()
    return Path(root).expanduser() / "paceline" / "digests" / name
