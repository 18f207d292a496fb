"""Completions with `echo`: texts that begin with their prompts, and their log-probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.serve.answers.choice import Delta
from pipelines.serve.answers.forms import Completions
from pipelines.serve.answers.heading import Json


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and its tokens."""

    text: str
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class Echoes(Completions):
    """Of /v1/completions with `echo`: texts that begin with their prompts."""

    prompts: Sequence[Prompt] = ()
    n: int = 1

    def opening(self, index: int) -> Json | None:
        """The prompt comes first; its log-probabilities are not streamed."""
        text = self._prompt(index).text
        return {"index": index, "text": text, "logprobs": None, "finish_reason": None}

    def choice(self, whole: Delta) -> Json:
        """Prompt and completion."""
        prompt = self._prompt(whole.index)
        told = Completions.chunk(self, whole)
        told["text"] = prompt.text + told["text"]
        if self.logprobs:
            entries = [*whole.prompt_logprobs, *whole.logprobs]
            first = self._first(prompt)
            rest = Delta(whole.index, logprobs=entries, offset=len(first["tokens"][0]))
            told["logprobs"] = _joined(first, self._logprobs(rest))
        return told

    def _first(self, prompt: Prompt) -> Json:
        """The first token has nothing before it that could tell its probability."""
        return {
            "tokens": [self.spell(prompt.tokens[0])],
            "token_logprobs": [None],
            "top_logprobs": [None],
            "text_offset": [0],
        }

    def _prompt(self, index: int) -> Prompt:
        return self.prompts[index // self.n]


def _joined(first: Json, rest: Json) -> Json:
    return {name: [*values, *rest[name]] for name, values in first.items()}
