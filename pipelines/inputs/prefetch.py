"""Runs an iterator ahead in a thread, a bounded number of items."""

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, Self, TypeVar

T = TypeVar("T")
LEAVE_S = 1.0  # that the iterator has to end


class Prefetch(Generic[T]):
    """Items of an iterator, ready when asked for. An error of the iterator's is raised by `get`."""

    def __init__(self, source: Iterator[T], *, depth: int = 2) -> None:
        self._source = source
        self._items: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="prefetch")
        self.ended = False  # no item will come any more

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(LEAVE_S)

    @property
    def ready(self) -> bool:
        """Whether an item can be had at once."""
        return not self._items.empty()

    def get(self, *, timeout_s: float) -> T | None:
        """The next item; None if none is ready in time or none is left."""
        if self.ended:
            return None
        try:
            item = self._items.get(timeout=timeout_s) if timeout_s else self._items.get_nowait()
        except queue.Empty:
            return None
        if item is None or isinstance(item, BaseException):
            self.ended = True
        if isinstance(item, BaseException):
            raise item
        return item

    def _work(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:  # it belongs to whoever asks for the next item
            self._put(error)
        finally:
            self._close()

    def _close(self) -> None:
        """End the iterator here and now: what it calls at its end may soon be gone."""
        close = getattr(self._source, "close", None)
        with suppress(Exception):
            if close is not None:
                close()

    def _put(self, item: T | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._items.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
