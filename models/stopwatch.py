"""Where the time of steps went."""

import time


class Stopwatch:
    """Each `note` books the time since the last one under a part of the step."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = self._round = 0.0

    def start(self) -> None:
        """A new step begins."""
        self._last, self._round = time.perf_counter(), 0.0

    def note(self, part: str) -> None:
        """Book the time since the last note."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds
        if part != "prefill":
            self._round += seconds

    def shift(self, source: str, destination: str, seconds: float) -> None:
        """Book time noted under one part under another."""
        seconds = min(seconds, self._seconds.get(source, 0.0))
        self._seconds[source] -= seconds
        self._seconds[destination] = self._seconds.get(destination, 0.0) + seconds

    def round_s(self) -> float:
        """Of the step so far, all but the reading of prompts."""
        return self._round

    def totals(self) -> dict[str, float]:
        """Seconds of all steps, by the names that figures have."""
        return {f"{part}_s": seconds for part, seconds in self._seconds.items()}
