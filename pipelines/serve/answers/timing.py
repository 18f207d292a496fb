"""Where the time of an answer went: here, and in the processes that made it."""

import time
from collections.abc import Sequence

from models.requests.spans import Span, Spans
from pipelines.serve.answers.choice import AnswerChoice
from pipelines.serve.answers.heading import Json
from pipelines.trace_events import trace_events


class Timing:
    """Of one answer, from now on."""

    def __init__(self) -> None:
        self._spans, self._began = Spans("ingress"), time.perf_counter()

    def planned(self) -> None:
        """The body has become requests."""
        self._spans.add("encode", self._began, time.perf_counter())

    def events(self, choices: Sequence[AnswerChoice]) -> Json:
        """All that was noted, once the choices have ended: a file for Perfetto."""
        own = Spans("ingress")
        own.add("answer", self._began, time.perf_counter())
        named = []
        for choice in choices:
            found: Sequence[Span] = choice.result.spans if choice.result is not None else ()
            first = (*own.found, *self._spans.found) if choice.index == 0 else ()
            named.append((f"choice {choice.index}", (*first, *found)))
        return trace_events(named)
