"""Where the time of a step went."""

import time


class Stopwatch:
    """Each `note` books the time since the last one under a part of the step."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = 0.0

    def start(self) -> None:
        """A new step begins."""
        self._seconds, self._last = {}, time.perf_counter()

    def note(self, part: str) -> None:
        """Book the time since the last note."""
        now = time.perf_counter()
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._last
        self._last = now

    def shift(self, source: str, destination: str, seconds: float) -> None:
        """Book time noted under one part under another."""
        seconds = min(seconds, self._seconds.get(source, 0.0))
        self._seconds[source] -= seconds
        self._seconds[destination] = self._seconds.get(destination, 0.0) + seconds

    def round_s(self) -> float:
        """Of the step so far, all but the reading of prompts."""
        return sum(s for part, s in self._seconds.items() if part != "prefill")

    def totals(self) -> dict[str, float]:
        """Seconds by the names that figures have."""
        return {f"{part}_s": seconds for part, seconds in self._seconds.items()}
