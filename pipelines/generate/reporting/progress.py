"""The progress bar of a generate job: rows, tokens per second, accepted length."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from tqdm import tqdm

from models.requests.request import Result


class Progress:
    """Counts results; draws on standard error, unless it is switched off."""

    def __init__(self, *, rows: int, done: int, shown: bool) -> None:
        self._bar = tqdm(
            total=rows,
            initial=done,
            unit="row",
            desc="generate",
            disable=not shown,
            file=sys.stderr,
            dynamic_ncols=True,
        )
        self._began = time.monotonic()
        self._tokens = self._passes = self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def note(self, told: str) -> None:
        """Say what the job is waiting for."""
        self._bar.set_postfix_str(f"{told} ...")

    @contextmanager
    def noted(self, told: str) -> Iterator[None]:
        """Say it at this point of a `with` statement."""
        self.note(told)
        yield

    def begin(self, told: str) -> None:
        """From now on requests run: what came before does not count as time for rows."""
        self._began = time.monotonic()
        self._bar.unpause()
        self.note(told)

    def add(self, results: Sequence[Result]) -> None:
        """Count some results."""
        for result in results:
            self._tokens += len(result.tokens)
            self._passes += result.target_passes
            self._failed += result.finish_reason == "error"
        self._bar.set_postfix_str(self._figures(), refresh=False)
        self._bar.update(len(results))

    def _figures(self) -> str:
        seconds = time.monotonic() - self._began
        rate = self._tokens / seconds if seconds > 0 else 0.0
        length = self._tokens / self._passes if self._passes else 0.0
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{rate:.0f} tokens/s, accepted length {length:.2f}{failed}"
