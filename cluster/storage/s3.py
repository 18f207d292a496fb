"""Objects on S3: whole, in parts, and written only on a condition.

Endpoint and credentials come from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_PROFILE, ...). Every call may be repeated: where an answer was lost, the repetition finds what
the first call wrote.
"""

import io
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from cluster.storage.patience import http_status, patiently

BUFFER_BYTES = 4 << 20  # read at once
ANSWER_S = 15.0  # of silence, then a request has failed
NOT_SO = 412  # HTTP: the condition of a write does not hold


def client() -> Any:
    """The S3 client for the endpoint that the environment names now."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return _client(endpoint, os.getpid())


@cache
def _client(endpoint: str | None, process: int) -> Any:
    import s3fs

    once = {"retries": {"total_max_attempts": 1}, "read_timeout": ANSWER_S}
    made = s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False, config_kwargs=once)
    made.retries = 1  # patience.py tries again: five silent requests outlast a lease
    return made


def size(url: str) -> int | None:
    """Bytes of an object; None if there is none."""
    found = _info(url)
    return None if found is None else int(found["size"])


def version(url: str) -> tuple[str, int]:
    """(ETag, bytes) of an object; raises FileNotFoundError if there is none."""
    found = _info(url)
    if found is None:
        raise FileNotFoundError(url)
    return str(found["ETag"]), int(found["size"])


def part_size(url: str) -> int:
    """Bytes of the first part of an object that was uploaded in parts."""
    return int(_head(url, PartNumber=1)["ContentLength"])


def part_sizes(url: str, count: int) -> list[int]:
    """Bytes of each of the `count` parts of an object that was uploaded in parts."""
    parts = range(1, count + 1)
    return [int(_head(url, PartNumber=part)["ContentLength"]) for part in parts]


def is_digest(url: str) -> bool:
    """Whether an object's ETag is made of MD5s: not where S3 encrypts with keys of its own."""
    return bool(_head(url).get("ServerSideEncryption", "AES256") == "AES256")


def _head(url: str, **options: object) -> Any:
    bucket, key, _ = client().split_path(url)
    asked = {"Bucket": bucket, "Key": key, **options}
    return _ask("look at", url, lambda: client().call_s3("head_object", **asked))


def read(url: str) -> bytes:
    """A whole object."""
    return bytes(_ask("read", url, lambda: client().cat_file(url)))


def open_input(url: str) -> BinaryIO:
    """An object to read and seek in."""
    found = size(url)
    if found is None:
        raise FileNotFoundError(url)
    return cast(BinaryIO, io.BufferedReader(_Reader(url, found), BUFFER_BYTES))


def publish(url: str, data: bytes) -> None:
    """Write an object."""
    _ask("write", url, lambda: client().pipe_file(url, data))


def upload(file: Path, url: str) -> None:
    """Write an object with a file's content, in parts if it is large."""
    _ask("write", url, lambda: client().put_file(str(file), url))


def create(url: str, data: bytes) -> None:
    """Write an object; raises FileExistsError if there is another one."""
    if not _put_if(url, data, IfNoneMatch="*"):
        raise FileExistsError(url)


def swap(url: str, old: bytes | None, new: bytes | None) -> bool:
    """See disk.py."""
    before = _info(url)
    found = None if before is None else read(url)
    if found == new:
        return True  # an earlier call did it
    if found != old:
        return False
    if new is None:
        remove(url)
        return True
    return _put_if(url, new, **({"IfMatch": before["ETag"]} if before else {"IfNoneMatch": "*"}))


def remove(url: str) -> None:
    """Delete an object; it may be gone already."""
    if size(url) is not None:
        _ask("remove", url, lambda: client().rm_file(url))


def files(url: str) -> Iterator[tuple[str, str, int]]:
    """(URL, name within the folder, bytes) of the objects in a folder."""
    prefix = url.removeprefix("s3://") + "/"
    found = _ask("list", url, lambda: client().find(prefix, detail=True))
    for path, info in found.items():
        if path.startswith(prefix) and not path.endswith("/"):
            yield "s3://" + path, path.removeprefix(prefix), int(info["size"])


def _put_if(url: str, data: bytes, **condition: object) -> bool:
    """Write an object on a condition; whether it then has the content."""
    bucket, key, _ = client().split_path(url)
    put = dict(Bucket=bucket, Key=key, Body=data, **condition)
    try:
        _ask("write", url, lambda: client().call_s3("put_object", **put))
    except OSError as error:
        if not isinstance(error, FileExistsError) and http_status(error) != NOT_SO:
            raise
        return _info(url) is not None and read(url) == data
    return True


def _info(url: str) -> Any:
    """What S3 says of an object; None if there is none."""

    def look() -> Any:
        try:
            found = client().info(url)
        except FileNotFoundError:
            return None
        return found if found["type"] == "file" else None

    return _ask("look at", url, look)


def _ask(action: str, url: str, call: Any) -> Any:
    return patiently(call, f"{action} {url}")


class _Reader(io.RawIOBase):
    """An object's bytes by ranges."""

    def __init__(self, url: str, size_bytes: int) -> None:
        super().__init__()
        self._url, self._size, self._at = url, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        start = self._at
        data = _ask("read", self._url, lambda: client().cat_file(self._url, start=start, end=end))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
