"""A running request: its tokens so far, and whether it has ended.

Does not depend on caches, drafts or batches.
"""

from collections.abc import Iterable

from models.requests.grammar import REFUSED, GrammarState
from models.requests.output_text import CONTEXT, Decode, OutputText
from models.requests.request import Request, Result, TokenLogprob
from models.requests.spans import Spans


class Sequence:
    """A running request. `append` is the only way to add tokens."""

    def __init__(
        self,
        request: Request,
        *,
        eos: Iterable[int] = (),
        decode: Decode | None = None,
        grammar: GrammarState | None = None,
    ) -> None:
        """`grammar`: the state of the request's grammar before its first token."""
        sampling = request.sampling
        self.request = request
        self.id = request.id
        self.tokens: list[int] = list(request.prompt)
        self.num_prompt = len(request.prompt)
        self.stop_tokens = frozenset(sampling.stop_token_ids) | (
            frozenset() if sampling.ignore_eos else frozenset(eos)
        )
        self.logprobs: list[TokenLogprob] = []
        self.prompt_logprobs: list[TokenLogprob] = []  # of its tokens after the first
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.grammar = grammar
        self.is_invalid = False  # the error is the request's own fault
        self.stop_text: str | None = None
        self.cached = 0  # tokens that were in the KV cache when it was admitted
        self.rounds = 0
        self.drafted = 0
        self.predicted = self.mispredicted = 0  # tokens of the prediction
        self.accepted: list[int] = []  # rounds with a draft, by accepted draft tokens
        self.spans = Spans() if request.trace else None
        self._text: OutputText | None = None
        if decode is not None and (sampling.stop or request.stream):
            head = request.prompt[-CONTEXT:]
            self._text = OutputText(decode, stops=sampling.stop, head=head, keep=request.stream)

    def resume(self) -> None:
        """Continue after the tokens that the request has generated elsewhere.

        Stops at the first one that ends the request, if any.
        """
        self.logprobs += self.request.generated_logprobs
        for token in self.request.generated:
            if self.append(token):
                break
        if self.request.stream:
            self.take_text()  # reported where the tokens were generated

    @property
    def generated(self) -> list[int]:
        """The tokens after the prompt."""
        return self.tokens[self.num_prompt :]

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def num_new(self) -> int:
        """Tokens generated since the request began or continued here."""
        return self.num_generated - len(self.request.generated)

    @property
    def lacks_prompt_logprobs(self) -> bool:
        """Whether log-probabilities of the prompt are asked for and not all known."""
        asked = self.request.prompt_logprobs is not None
        return asked and len(self.prompt_logprobs) < self.num_prompt - 1

    @property
    def has_hints(self) -> bool:
        """Whether the request itself may say what comes next."""
        has = self.grammar is not None or bool(self.request.prediction)
        return has and self.request.drafts

    @property
    def num_left(self) -> int:
        """Tokens that may still be generated."""
        return self.request.sampling.max_tokens - self.num_generated

    def append(self, token: int) -> bool:
        """Add a token; True if the request ends with it."""
        self.tokens.append(token)
        if self.grammar is not None and not self.grammar.consume(token):
            self.fail(REFUSED, invalid=True)
            return True
        found = None if self._text is None else self._text.push(token)
        if token in self.stop_tokens:  # the processed distribution enforces min_tokens
            self.finish_reason = "stop"
        elif found is not None and self.num_generated >= self.request.sampling.min_tokens:
            self._stop_at(found)
        elif self.grammar is not None and self.grammar.is_complete:
            self.finish_reason = "stop"
        elif self.num_left <= 0:
            self.finish_reason = "length"
        return self.finish_reason is not None

    def note_draft(self, nodes: int, depth: int, accepted: int) -> None:
        """A round had a draft of `nodes` tokens, `depth` deep, of which `accepted` stand."""
        self.drafted += nodes
        self.accepted += [0] * (depth + 1 - len(self.accepted))
        self.accepted[accepted] += 1

    def fail(self, error: str, *, invalid: bool = False) -> None:
        """End the request with an error; `invalid`: of its own."""
        self.finish_reason, self.error, self.is_invalid = "error", error, invalid

    def _stop_at(self, stop: str) -> None:
        assert self._text is not None
        self._text.cut()
        self.finish_reason, self.stop_text = "stop", stop

    def take_text(self) -> str | None:
        """The text that is settled and was not taken before; None without a tokenizer."""
        if self._text is None:
            return None
        return self._text.take(ended=self.finish_reason is not None)

    def result(self, exactness: str) -> Result:
        """The result of the request, ended or cancelled."""
        return Result(
            id=self.id,
            tokens=() if self.error else tuple(self.generated),
            finish_reason=self.finish_reason or "cancelled",
            error=self.error,
            exactness=exactness,
            accepted_length=self.num_new / max(self.rounds, 1),
            target_passes=self.rounds,
            draft_tokens=self.drafted,
            accepted_histogram=tuple(self.accepted),
            invalid=self.is_invalid,
            prompt_logprobs=None
            if self.request.prompt_logprobs is None
            else tuple(self.prompt_logprobs),
            cached_tokens=self.cached,
            predicted=self.predicted,
            mispredicted=self.mispredicted,
            spans=() if self.spans is None else tuple(self.spans.found),
            stop_text=self.stop_text,
            logprobs=tuple(self.logprobs) if self.request.sampling.logprobs is not None else None,
        )
