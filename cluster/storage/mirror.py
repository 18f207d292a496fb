"""A folder on S3 that is worked on in a folder of this machine: fetched, then kept up to date.

Only the holder of a lease on the S3 folder may use it. Files that commit others, by name, are
copied after them, and deleted before them: what S3 holds is complete at any time.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from cluster.errors import ClusterError, StorageError
from cluster.storage import storage

EVERY_S = 20.0
TEMPORARY = ".new"  # suffix of what is renamed when it is complete
Signature = tuple[int, int]  # bytes, time of the last change

log = logging.getLogger(__name__)


class Mirror:
    """Copies changes of the local `folder` to `url`; `commits`: whether a file commits others.

    `skipped`: files and folders, relative to the folder, that are not copied; * is any part.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        commits: Callable[[str], bool],
        check: Callable[[], None],
        skipped: tuple[str, ...] = (),
    ) -> None:
        """`check` raises LeaseLost if the lease is another one's by now."""
        self._folder, self._url, self._commits, self._skipped = folder, url, commits, skipped
        self._check = check
        self._known: dict[str, Signature] = {}  # what S3 holds
        self._lock = threading.Lock()

    def pull(self) -> None:
        """Make the local folder equal to S3's; what it held before is deleted."""
        with self._lock:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True)
            self._known.clear()
            for info in storage.list_files(self._url):
                if self._is_copied(info.name):
                    place = self._place(info.name)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    storage.download(info.url, place)
                    self._known[info.name] = _signature(place)

    def push(self) -> None:
        """Copy what has changed since the last call, and delete what is gone."""
        with self._lock:
            self._check()
            # Those that commit are looked for first: what they commit was there before them.
            commits = self._found(committing=True)
            files = self._found(committing=False)
            gone = self._known.keys() - commits.keys() - files.keys()
            for name in sorted(gone, key=lambda name: not self._commits(name)):
                storage.remove(self._target(name))
                del self._known[name]
            for name, signature in (files | commits).items():
                if self._known.get(name) != signature:
                    with suppress(FileNotFoundError):  # it was replaced meanwhile
                        storage.upload(self._place(name), self._target(name))
                        self._known[name] = signature

    def create(self, name: str, data: bytes) -> None:
        """Write a file that is not there yet, on S3 alone, where two writers cannot both do so.

        Raises StorageError if there is another one.
        """
        self._check()
        if not storage.create(self._target(name), data):
            raise StorageError("write", self._target(name), "another run has written it")

    @contextmanager
    def following(self) -> Iterator[None]:
        """Within, changes are copied every EVERY_S seconds by a thread."""
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(EVERY_S):
                try:
                    self.push()
                except ClusterError as error:
                    log.warning("%s; the next copy tries again", error)

        thread = threading.Thread(target=follow, daemon=True, name="mirror")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _found(self, *, committing: bool) -> dict[str, Signature]:
        """The local files that are copied, of one of the two sorts."""
        found = {}
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if self._is_copied(name) and self._commits(name) == committing:
                with suppress(FileNotFoundError):
                    if path.is_file():
                        found[name] = _signature(path)
        return found

    def _is_copied(self, name: str) -> bool:
        parts = PurePosixPath(name).parts
        if ".." in parts or name.startswith("/"):
            raise StorageError("copy", self._target(name), "its name leads out of the folder")
        if any(part.startswith(".") or part.endswith(TEMPORARY) for part in parts):
            return False
        return not any(fnmatchcase(f"{name}/", f"{skipped}/*") for skipped in self._skipped)

    def _place(self, name: str) -> Path:
        return self._folder / name

    def _target(self, name: str) -> str:
        return storage.join(self._url, name)


def _signature(path: Path) -> Signature:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
