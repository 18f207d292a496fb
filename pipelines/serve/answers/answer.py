"""Answers of /v1/completions and /v1/chat/completions around their choices, whole or in chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from models.requests.request import Result
from pipelines.serve.answers.choice import AnswerChoice, Delta
from pipelines.serve.answers.events import DONE, event, padding
from pipelines.serve.answers.forms import AnswerForm
from pipelines.serve.answers.heading import Heading, Json
from pipelines.serve.answers.timing import Timing
from pipelines.serve.answers.trace import Trace
from pipelines.serve.api_error import ApiError


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Heading):
    """What all chunks of an answer repeat. `include_usage`: in a stream, too."""

    form: AnswerForm
    include_usage: bool = False
    trace: Trace | None = None
    timing: Timing | None = None
    padded: bool = False  # with random text, so that a chunk's size does not tell its tokens

    def whole(self, choices: Sequence[AnswerChoice]) -> Json:
        """The answer to a body without `stream`."""
        found = [self.form.choice(choice.whole) for choice in choices]
        head = self._head(self.form.whole_kind)
        return {**head, "choices": found, "usage": self.usage(choices), **self._decoding(choices)}

    def chunk(self, choice: Json) -> Json:
        """One of a stream."""
        return {**self._head(self.form.chunk_kind), "choices": [choice]}

    def last_chunk(self, choices: Sequence[AnswerChoice]) -> Json:
        """No choices, but the usage."""
        head = self._head(self.form.chunk_kind)
        return {**head, "choices": [], "usage": self.usage(choices), **self._decoding(choices)}

    def opening(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """What comes before the text of the choices."""
        for choice in choices:
            first = self.form.opening(choice.index)
            if first is not None:
                yield event(self.chunk(first))

    def news(self, delta: Delta) -> Iterator[bytes]:
        """One chunk."""
        chunk = self.chunk(self.form.chunk(delta))
        if self.trace is not None:
            chunk["paceline"] = {"trace": self.trace.of(delta)}
        if self.padded:
            chunk["obfuscation"] = padding()
        yield event(chunk)

    def closing(self, choices: Sequence[AnswerChoice]) -> Iterator[bytes]:
        """The usage and the times, if asked for."""
        if self.include_usage or self.timing is not None:
            yield event(self.last_chunk(choices))
        yield DONE

    def failure(self, error: ApiError) -> Iterator[bytes]:
        """An error is the last chunk."""
        yield event(error.body())

    def usage(self, choices: Sequence[AnswerChoice]) -> Json:
        """Tokens; a prompt counts once for all of its choices."""
        generated = sum(choice.num_tokens for choice in choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": generated,
            "total_tokens": self.prompt_tokens + generated,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens(choices)},
            **self._predicted(choices),
        }

    def _decoding(self, choices: Sequence[AnswerChoice]) -> Json:
        told = decoding(choices)
        if self.timing is not None:
            told["paceline"]["trace_events"] = self.timing.events(choices)
        return told

    def _predicted(self, choices: Sequence[AnswerChoice]) -> Json:
        found = self.predicted(choices)
        return {"completion_tokens_details": found} if found else {}

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "seed": self.seed,
        }


def decoding(choices: Sequence[AnswerChoice]) -> Json:
    """How the tokens came about: they are the same whatever was drafted."""
    results = [choice.result for choice in choices if choice.result is not None]
    return {
        "paceline": {
            "exactness": sorted({result.exactness for result in results}),
            "target_passes": sum(result.target_passes for result in results),
            "draft_tokens": sum(result.draft_tokens for result in results),
        },
        "metrics": {"speculative_decoding": speculation(results)},
    }


def speculation(results: Sequence[Result]) -> Json | None:
    """The drafts of all choices together, in vLLM's form; None if there were none."""
    found = [result.accepted_histogram for result in results]
    histogram = [sum(counts) for counts in zip_longest(*found, fillvalue=0)]
    steps, drafted = sum(histogram), sum(result.draft_tokens for result in results)
    if not steps:
        return None
    accepted = sum(length * count for length, count in enumerate(histogram))
    return {
        "mean_acceptance_length": 1 + accepted / steps,
        "draft_acceptance_rate": accepted / drafted,
        "acceptance_histogram": histogram,
        "num_spec_steps": steps,
        "num_accepted_draft_tokens": accepted,
        "num_draft_tokens": drafted,
        "num_spec_tokens": len(histogram) - 1,
    }
