"""A lease: who may write in a folder, as a small file in it; local or on S3.

The holder renews the file while it lives. The lease ends when the file is deleted, when its holder
is known to have ended (a process of this machine), or when it was not renewed for `expires_s`. Who
takes over an expired lease watches it first, so that clocks that differ end no living one. The file
is only ever changed on the condition that its content is what was read (`storage.swap`), so of
several runs one gets it. A holder that was paused for long finds another's name in the file.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from cluster.errors import ClusterError, LeaseLost, StorageError
from cluster.processes.process import Process
from cluster.storage import storage

EXPIRES_S = 60.0
RENEW_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What the file says. `since` and `renewed` are seconds of the holder's clock."""

    token: str  # different for every lease
    process: Process
    since: float
    renewed: float
    expires_s: float
    renew_s: float

    def data(self) -> bytes:
        """The file's content."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def read(cls, data: bytes) -> Self:
        """From the file's content; raises ValueError if it is no lease."""
        try:
            values: dict[str, Any] = json.loads(data)
            return cls(**values | {"process": Process(**values["process"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"no lease of ours: {error}") from error

    @property
    def left_s(self) -> float:
        """Until it expires; at once if its process is known to have ended."""
        if self.process.has_ended:
            return 0.0
        return min(self.expires_s, max(0.0, self.renewed + self.expires_s - time.time()))

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.process.pid} on host {self.process.host}, since {since}"


class Held(ClusterError):
    """Someone else holds the lease."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(f"the lease is held by {holder}")
        self.holder = holder


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Tells whether a lease is still held; may be sent to other processes."""

    url: str
    token: str

    def check(self) -> None:
        """Raise LeaseLost unless the lease is held; to be called right before a write."""
        try:
            holder = Holder.read(storage.read_bytes(self.url))
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise LeaseLost(f"the lease {self.url} is gone: another run had it") from None
            raise
        if holder.token != self.token:
            raise LeaseLost(
                f"{holder} took the output folder over, as this run was not heard of for "
                f"{holder.expires_s:.0f} s"
            )


@contextmanager
def hold(url: str, *, expires_s: float = EXPIRES_S, renew_s: float = RENEW_S) -> Iterator[Ticket]:
    """Hold the lease that the file `url` stands for.

    Raises:
        Held: someone else does.
        StorageError: the file cannot be written.
    """
    now = time.time()
    mine = Holder(
        token=uuid.uuid4().hex,
        process=Process.this(),
        since=now,
        renewed=now,
        expires_s=expires_s,
        renew_s=renew_s,
    )
    while not _take(url, mine):
        pass
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(url, mine, ended), daemon=True)
    renewal.start()
    try:
        yield Ticket(url=url, token=mine.token)
    finally:
        ended.set()
        renewal.join(renew_s)
        _release(url, mine)


def _take(url: str, mine: Holder) -> bool:
    """Get the lease if it is free; False: it changed meanwhile, look again."""
    found = _content(url)
    if found is None:
        return storage.swap(url, None, mine.data())
    try:
        holder = Holder.read(found)
    except ValueError as error:
        raise StorageError("use", url, f"{error}; delete it if no run is alive") from error
    if holder.left_s > 0:
        raise Held(holder)
    if not holder.process.has_ended:
        watch_s = 1.5 * holder.renew_s
        log.warning("%s is not heard of any more: watching for %.0f s", holder, watch_s)
        time.sleep(watch_s)
    return storage.swap(url, found, mine.data())


def _renew(url: str, mine: Holder, ended: threading.Event) -> None:
    """Write the time into the file again and again, until the lease ends or is lost."""
    while not ended.wait(mine.renew_s):
        try:
            found = _content(url)
            if found is None or Holder.read(found).token != mine.token:
                log.warning("the lease %s is lost", url)
                return
            storage.swap(url, found, replace(mine, renewed=time.time()).data())
        except (StorageError, OSError) as error:
            log.warning("the lease could not be renewed: %s", error)


def _release(url: str, mine: Holder) -> None:
    """Delete the file if it is this lease's; one that stays expires."""
    try:
        found = _content(url)
        if found is not None and Holder.read(found).token == mine.token:
            storage.swap(url, found, None)
    except StorageError as error:
        log.warning("the lease could not be given back: %s", error)


def _content(url: str) -> bytes | None:
    try:
        return storage.read_bytes(url)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
