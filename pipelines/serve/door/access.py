"""Who may use the server: holders of a key; without keys, programs on this machine.

A web page in a browser on this machine can reach a loopback address, too. Without keys, the headers
Host and Origin must therefore name this machine, and bodies must say that they are JSON, which a
page of another site cannot send without asking.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from models.errors import InvalidOption
from pipelines.serve.api_error import ApiError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
HASH = re.compile(r"[0-9a-f]{64}")
PRIORITY, ADMIN = "priority", "admin"  # what a key's line may say that it may do
EMPTY = hashlib.sha256(b"").hexdigest()


def read_key_hashes(file: str) -> tuple[str, ...]:
    """SHA-256 of each key in hexadecimal, one per line; the first word of a line counts.

    Raises InvalidOption if the file cannot be read, or holds something else.
    """
    words = [line[0].lower() for line in _lines(file)]
    told = "a SHA-256 in hexadecimal per line, as `printf %s KEY | sha256sum` prints it"
    if not words or not all(HASH.fullmatch(word) for word in words):
        raise InvalidOption("api_key_file", file, told)
    if EMPTY in words:
        told = f"{told}; {EMPTY[:8]}... is that of an empty KEY"
        raise InvalidOption("api_key_file", file, told)
    return tuple(words)


def read_marked_hashes(file: str, mark: str) -> tuple[str, ...]:
    """Those of the keys with PRIORITY or ADMIN as a later word of the line.

    Raises InvalidOption if the file cannot be read.
    """
    return tuple(line[0].lower() for line in _lines(file) if mark in line[1:])


def _lines(file: str) -> list[list[str]]:
    """The words of each line."""
    try:
        lines = Path(file).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption("api_key_file", file, f"it cannot be read: {error}") from error
    return [line.split() for line in lines if line.strip()]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address of this name."""
    return host.lower().strip("[]") in LOOPBACK


def check_access(headers: Mapping[str, str], key_hashes: tuple[str, ...]) -> str:
    """Who the client is: the hash of its key; "" without keys.

    Raises ApiError (401, 403) unless the client may use the server.
    """
    if key_hashes:
        return _check_key(headers, key_hashes)
    host, origin = headers.get("host", ""), headers.get("origin")
    if not is_loopback(_hostname(f"//{host}")):
        raise _forbidden(f"Host {host[:100]!r} is not this machine")
    if origin is not None and not is_loopback(_hostname(origin)):
        raise _forbidden(f"Origin {origin[:100]!r} is not this machine")
    return ""


def check_content(headers: Mapping[str, str]) -> None:
    """Raise ApiError (415) unless a body says that it is JSON."""
    found = headers.get("content-type", "")
    if found.partition(";")[0].strip().lower() != "application/json":
        told = f"Content-Type is {found[:100]!r}; application/json is needed"
        raise ApiError(told, status=415)


def _check_key(headers: Mapping[str, str], key_hashes: tuple[str, ...]) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if not scheme and headers.get("x-api-key"):  # as Anthropic's clients send it
        scheme, key = "bearer", headers["x-api-key"]
    found = hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).hexdigest()
    matches = [hmac.compare_digest(found, each) for each in key_hashes]
    if scheme.lower() != "bearer" or found == EMPTY or not any(matches):
        told = "a valid API key is needed: Authorization: Bearer KEY"
        raise ApiError(told, status=401, kind="authentication_error", code="invalid_api_key")
    return found


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _forbidden(reason: str) -> ApiError:
    told = f"{reason}, and the server has no API keys"
    return ApiError(told, status=403, kind="permission_error", code="forbidden")
