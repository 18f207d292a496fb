"""Measures the time of each part of a step."""

import time


class Stopwatch:
    """Each `note` adds the time since the previous one to a part of the step."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self.last = self._round = 0.0  # when the last part ended, or the step began
        self.parts: list[tuple[str, float, float]] = []  # of this step: name, begin and end

    def start(self) -> None:
        """Start a new step."""
        self.last, self._round = time.perf_counter(), 0.0
        self.parts.clear()

    def note(self, part: str) -> float:
        """Add the time since the previous note to `part`; returns it, in seconds."""
        now = time.perf_counter()
        self.parts.append((part, self.last, now))
        seconds, self.last = now - self.last, now
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds
        if part != "prefill":
            self._round += seconds
        return seconds

    def shift(self, source: str, destination: str, seconds: float) -> None:
        """Move time from one part to another."""
        seconds = min(seconds, self._seconds.get(source, 0.0))
        self._seconds[source] -= seconds
        self._seconds[destination] = self._seconds.get(destination, 0.0) + seconds

    def round_s(self) -> float:
        """Seconds of this step so far, without prefill."""
        return self._round

    def totals(self) -> dict[str, float]:
        """Seconds of all steps, by the field names of Figures."""
        return {f"{part}_s": seconds for part, seconds in self._seconds.items()}
