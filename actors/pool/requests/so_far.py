"""What a streaming request has gained so far, and what is left of it to run."""

from dataclasses import replace

from models.requests.request import Request, TokenLogprob
from models.requests.update import Update


class SoFar:
    """Of one request, from what it began with."""

    def __init__(self, request: Request) -> None:
        self.request = request
        places = request.generated_positions or range(len(request.generated))
        self._tokens = dict(zip(places, request.generated, strict=False))  # by position
        self._logprobs: dict[int, TokenLogprob]
        self._logprobs = dict(zip(places, request.generated_logprobs, strict=False))

    def note(self, update: Update) -> None:
        """The request has streamed these tokens."""
        self._tokens.update(zip(update.positions, update.tokens, strict=True))
        if update.logprobs is not None:
            self._logprobs.update(zip(update.positions, update.logprobs, strict=True))

    def rest(self) -> Request:
        """What is left to run: the request continues after the tokens that have streamed."""
        places = sorted(self._tokens)
        if len(places) <= len(self.request.generated):
            return self.request
        return replace(
            self.request,
            generated=tuple(self._tokens[place] for place in places),
            generated_logprobs=tuple(self._logprobs[place] for place in sorted(self._logprobs)),
            generated_positions=() if places[-1] == len(places) - 1 else tuple(places),
        )
