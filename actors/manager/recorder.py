"""What a server learns from: the tokens of requests that may be kept, until they are taken.

Knows nothing of files or training. Bounded: where nobody takes them, the oldest rows go.
"""

from collections import deque
from collections.abc import Iterable

from actors.messages import Row
from models.requests.request import Request, Result

MOST_ROWS = 1024  # that wait to be taken
ENDS = ("stop", "length")


class Recorder:
    """`began`, then `ended` or `cancelled` for each request; `take` empties it."""

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._open: dict[str, Request] = {}
        self._rows: deque[Row] = deque(maxlen=most_rows)

    def began(self, requests: Iterable[Request]) -> None:
        """They were queued; those that may not be recorded are passed over."""
        self._open.update((request.id, request) for request in requests if request.record)

    def cancelled(self, ids: Iterable[str]) -> None:
        """Their client has gone: nothing is kept of them."""
        for each in ids:
            self._open.pop(each, None)

    def ended(self, result: Result) -> None:
        """A request has ended by itself; a row if it has an answer."""
        request = self._open.pop(result.id, None)
        if request is None or result.finish_reason not in ENDS or not result.tokens:
            return
        row = Row(
            prompt=request.prompt,
            tokens=result.tokens,
            seed=request.seed,
            temperature=request.sampling.temperature,
        )
        self._rows.append(row)

    def take(self) -> tuple[Row, ...]:
        """All rows since the last call, the oldest first."""
        rows = tuple(self._rows)
        self._rows.clear()
        return rows
