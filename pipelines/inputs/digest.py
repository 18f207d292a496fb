"""Digests of whole files: read once, then remembered as long as a file stays what it is.

A digest is kept in the user's cache folder (`~/.cache/paceline/digests`, or below XDG_CACHE_HOME),
under a name made of the file's URL and version: its size, times and inode, or its ETag. A file that
was changed a moment ago is not remembered: its times may stay the same when it is changed again.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from cluster.errors import StorageError
from cluster.storage import storage

SMALL = 1 << 20  # bytes: read again rather than remembered
FRESH_S = 5.0
THREADS = min(8, os.cpu_count() or 1)
HEX = 32  # characters of a digest


def digests(urls: Iterable[str]) -> list[str]:
    """Of each file's content, several at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(digest, urls))


def digest(url: str) -> str:
    """Of a file's content."""
    version = storage.version(url)
    place = _place(url, version.name)
    with suppress(OSError):
        found = place.read_text()
        if len(found) == HEX:
            return found
    with storage.open_input(url) as file:
        made = hashlib.file_digest(cast(BufferedReader, file), _new).hexdigest()
    fresh = time.time() - version.changed < FRESH_S
    if version.size_bytes >= SMALL and not fresh and storage.version(url) == version:
        with suppress(StorageError):  # there is no place to remember it
            storage.publish(str(place), made.encode())
    return made


def _new() -> Any:
    return hashlib.blake2b(digest_size=HEX // 2)


def _place(url: str, version: str) -> Path:
    """Where the digest of a file of this version is kept."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    name = hashlib.blake2b(f"1 {url} {version}".encode(), digest_size=16).hexdigest()
    return Path(root).expanduser() / "paceline" / "digests" / name
