"""Grammars that outputs are held to: which tokens may come next, by llguidance.

A grammar's state is a function of the tokens generated so far, so a mask is the same in plain
decoding, at every node of a draft, and after a request has moved. Letters: V vocabulary.
"""

from collections import OrderedDict
from collections.abc import Sequence as Several
from pathlib import Path
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from models.batch import Bools
from models.errors import InvalidOption, InvalidRequest, UnsupportedCheckpoint

KNOWN = 64  # compiled grammars that are kept
FORCED = 64  # tokens that are computed ahead at most
REFUSED = "the grammar allows no token of the vocabulary here"


class GrammarState:
    """Where one request is in its grammar. Tokens are added by `consume` and never taken back."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher, self._vocab_size = matcher, vocab_size

    def consume(self, token: int) -> bool:
        """Add a token; False if the grammar does not allow it, and then nothing is added."""
        return self._matcher.try_consume_tokens([token]) == 1

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end can follow."""
        return bool(self._matcher.is_stopped())

    def mask(self, ahead: Several[int] = ()) -> Bools | None:
        """[V] the tokens that may follow the consumed ones and the draft tokens `ahead`.

        None if the grammar does not allow `ahead`, or if no token may follow.
        """
        count = self._matcher.try_consume_tokens(list(ahead)) if len(ahead) else 0
        allowed = self._allowed() if count == len(ahead) else None
        if count:
            self._matcher.rollback(count)
        return allowed

    def _allowed(self) -> Bools | None:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(np.bool_)
        missing = self._vocab_size - len(allowed)  # ids behind the tokenizer's
        allowed = np.pad(allowed, (0, missing)) if missing > 0 else allowed
        return allowed if allowed.any() else None

    def forced(self) -> list[int]:
        """The tokens that come next if only one text can follow; there may be none."""
        if self._matcher.is_stopped():
            return []
        found: list[int] = self._matcher.compute_ff_tokens()[:FORCED]
        return found


class Grammars:
    """The grammars of the requests on one target; compiled ones are kept."""

    def __init__(self, tokenizer: LLTokenizer, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._limits = LLParserLimits(verbose_errors=False)
        self._known: OrderedDict[str, LLMatcher] = OrderedDict()

    def check(self, grammar: str, field: str) -> None:
        """Raise InvalidOption if a grammar cannot be compiled. May take a second."""
        told = LLMatcher.validate_grammar(grammar, self._tokenizer, limits=self._limits)
        if told and not told.startswith("WARNING"):
            raise InvalidOption(field, "...", " ".join(told.split()))

    def begin(self, grammar: str) -> GrammarState:
        """The state before the first token. Raises InvalidRequest if it cannot be compiled."""
        matcher = self._known.get(grammar)
        if matcher is None:
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
            if matcher.is_error():
                raise InvalidRequest(f"grammar: {' '.join(matcher.get_error().split())}")
            self._known[grammar] = matcher
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(grammar)
        return GrammarState(matcher.deep_copy(), self._vocab_size)


def load_grammars(folder: str, vocab_size: int, eos: Several[int]) -> Grammars:
    """For the tokenizer of a checkpoint.

    Raises UnsupportedCheckpoint if it has no tokenizer.json, or one of an unknown kind.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.exists():
        raise UnsupportedCheckpoint(f"{folder!r} has no tokenizer.json, which grammars need")
    options: dict[str, Any] = {"eos_token": list(eos)} if eos else {}
    try:
        tokenizer = LLTokenizer(str(file), **options)
        if vocab_size > tokenizer.vocab_size:  # ids without a text: drafts may have them
            tokenizer = LLTokenizer(str(file), n_vocab=vocab_size, **options)
    except Exception as error:  # of its parser, in many forms
        raise UnsupportedCheckpoint(
            f"{folder!r}: grammars cannot use its tokenizer: {error}"
        ) from None
    return Grammars(tokenizer, vocab_size)
