"""Trying again while a storage service does not answer: exponential back-off with jitter."""

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0  # from the first failure; then the error is raised
FIRST_DELAY_S, LONGEST_DELAY_S = 0.25, 8.0

log = logging.getLogger(__name__)

# Classes of botocore, aiobotocore and aiohttp, by name: none of them is imported for local files.
_CONNECTION = {
    "HTTPClientError",  # also time-outs, closed connections, proxies
    "ConnectionError",
    "IncompleteReadError",
    "ResponseStreamingError",
    "ClientConnectionError",
    "ClientPayloadError",
}
_ERRNOS = {errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO)}  # s3fs: 503, 409 and 500


def patiently(call: Callable[[], T], doing: str) -> T:
    """The call's result. Repeats it while it fails in a way that may pass, for PATIENCE_S.

    The call must be safe to repeat: its answer may have been lost after it took effect.
    `doing`: what the call does, for the log.
    """
    began: float | None = None
    delay = FIRST_DELAY_S
    while True:
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise
            began = began or time.monotonic()
            left = PATIENCE_S - (time.monotonic() - began)
            if left <= 0:
                raise
            if delay in (FIRST_DELAY_S, LONGEST_DELAY_S):  # at first, and then now and again
                reason = " ".join(str(error).split()) or type(error).__name__
                log.warning("cannot %s (%s): trying again for %.0f s", doing, reason, left)
        time.sleep(min(left, random.uniform(delay / 2, delay)))
        delay = min(2 * delay, LONGEST_DELAY_S)


def may_pass(error: BaseException) -> bool:
    """Whether the service or the way to it failed, and not the request."""
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in (409, 429)
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    return any(kind.__name__ in _CONNECTION for kind in type(error).__mro__)


def http_status(error: BaseException | None) -> int | None:
    """The status of the answer that an error or one of its causes stems from, if there was one."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return None if status is None else int(status)
        error = error.__cause__
    return None
