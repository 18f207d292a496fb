"""A running request: its tokens so far, and whether it has ended.

Does not depend on caches, drafts or batches.
"""

from collections.abc import Callable, Iterable

from models.requests.request import Request, Result, TokenLogprob

Decode = Callable[[list[int]], str]


class Sequence:
    """A running request. `append` is the only way to add tokens."""

    def __init__(
        self, request: Request, *, eos: Iterable[int] = (), decode: Decode | None = None
    ) -> None:
        sampling = request.sampling
        self.request = request
        self.id = request.id
        self.tokens: list[int] = list(request.prompt)
        self.num_prompt = len(request.prompt)
        self.stop_tokens = frozenset(sampling.stop_token_ids) | (
            frozenset() if sampling.ignore_eos else frozenset(eos)
        )
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.stop_text: str | None = None
        self.rounds = 0
        self.drafted = 0
        self._stop = StopText(sampling.stop, decode) if sampling.stop and decode else None

    @property
    def generated(self) -> list[int]:
        """The tokens after the prompt."""
        return self.tokens[self.num_prompt :]

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def num_left(self) -> int:
        """Tokens that may still be generated."""
        return self.request.sampling.max_tokens - self.num_generated

    def append(self, token: int) -> bool:
        """Add a token; True if the request ends with it."""
        self.tokens.append(token)
        if token in self.stop_tokens:  # the processed distribution enforces min_tokens
            self.finish_reason = "stop"
        elif self._stop is not None and self._stops(token):
            self.finish_reason = "stop"
        elif self.num_left <= 0:
            self.finish_reason = "length"
        return self.finish_reason is not None

    def fail(self, error: str) -> None:
        """End the request with an error."""
        self.finish_reason, self.error = "error", error

    def _stops(self, token: int) -> bool:
        assert self._stop is not None
        found = self._stop.push(token)
        if found is None or self.num_generated < self.request.sampling.min_tokens:
            return False
        self.stop_text = found
        return True

    def result(self, exactness: str) -> Result:
        """The result of the request, ended or cancelled."""
        return Result(
            id=self.id,
            tokens=() if self.error else tuple(self.generated),
            finish_reason=self.finish_reason or "cancelled",
            error=self.error,
            exactness=exactness,
            accepted_length=self.num_generated / max(self.rounds, 1),
            target_passes=self.rounds,
            draft_tokens=self.drafted,
            stop_text=self.stop_text,
            logprobs=tuple(self.logprobs) if self.request.sampling.logprobs is not None else None,
        )


class StopText:
    """Finds stop strings in the text of a growing token sequence.

    Text is decoded a few tokens at a time. A token may hold part of a character, and some
    tokenizers decode a token differently at the start of a text. So each new piece is the
    difference of two decodings that share their first tokens.
    """

    def __init__(self, stops: tuple[str, ...], decode: Decode) -> None:
        self._stops, self._decode = stops, decode
        self._longest = max(map(len, stops))
        self._tokens: list[int] = []
        self._read = 0  # tokens whose text is in `_tail`
        self._tail = ""

    def push(self, token: int) -> str | None:
        """The stop string that the token completes, if any; of several, the first to begin."""
        self._tokens.append(token)
        before = self._decode(self._tokens[: self._read])
        text = self._decode(self._tokens)
        if text.endswith("\ufffd"):  # in the middle of a character
            return None
        old, self._tail = len(self._tail), self._tail + text[len(before) :]
        self._tokens, self._read = self._tokens[self._read :], len(self._tokens) - self._read
        # Only stop strings that end in the new text count; earlier ones were reported before.
        found = [(self._tail.find(s, max(0, old - len(s) + 1)), s) for s in self._stops]
        self._tail = self._tail[-self._longest :]
        return (
            min((at, s) for at, s in found if at >= 0)[1] if any(a >= 0 for a, _ in found) else None
        )
