"""The text of a growing token sequence: finds stop strings, and releases text that is settled.

Text is decoded a few tokens at a time. A token may hold part of a character, and some tokenizers
decode a token differently at the start of a text. So each new piece is the difference of two
decodings that share their first tokens.
"""

from collections.abc import Callable
from collections.abc import Sequence as Several

Decode = Callable[[list[int]], str]
CONTEXT = 8  # prompt tokens decoded before the output, so that its first characters come out right
INCOMPLETE = "\ufffd"  # what tokenizers write for a part of a character
BYTES = 4  # of a character, at most
PATIENCE = 16  # tokens without a complete character, after which the first ones are no part of one


class OutputText:
    """`push` adds a token; `take` returns the text that no later token can change.

    `head`: the last tokens of the prompt; their text is not part of the output. `keep`: hold text
    until it is taken; otherwise only as much as stop strings need.
    """

    def __init__(
        self,
        decode: Decode,
        *,
        stops: tuple[str, ...] = (),
        head: Several[int] = (),
        keep: bool = False,
    ) -> None:
        self._decode, self._stops, self._keep = decode, stops, keep
        self._longest = max(map(len, stops), default=0)
        self._tokens = list(head)
        if head and decode(self._tokens).endswith(INCOMPLETE):
            self._tokens = []  # the prompt ends inside a character
        self._read = len(self._tokens)  # tokens whose text is known
        self._text = ""  # its end
        self._taken = 0  # characters of `_text`
        self._stop_at = 0

    def push(self, token: int) -> str | None:
        """The stop string that the token completes, if any; of several, the first to begin."""
        self._tokens.append(token)
        before = self._decode(self._tokens[: self._read])
        text, end = self._decode(self._tokens), len(self._tokens)
        if text.endswith(INCOMPLETE):
            if end - self._read < PATIENCE:
                return None
            whole, end = text, end - BYTES
            text = self._decode(self._tokens[:end])
            if not whole.startswith(text):  # it ends inside a character
                return None
        self._tokens, self._read = self._tokens[self._read :], end - self._read
        return self._add(text[len(before) :])

    def _add(self, piece: str) -> str | None:
        """Only stop strings that end in the new piece count; earlier ones were reported before."""
        if not self._keep:
            self._text = self._text[max(0, len(self._text) - self._longest) :]
        old, self._text = len(self._text), self._text + piece
        found = [(self._text.find(s, max(0, old - len(s) + 1)), s) for s in self._stops]
        found = [(at, s) for at, s in found if at >= 0]
        if not found:
            return None
        self._stop_at, stop = min(found)
        return stop

    def cut(self) -> None:
        """Drop the stop string that `push` returned last, and all text after it."""
        self._text = self._text[: self._stop_at]
        self._tokens, self._read = [], 0

    def take(self, *, ended: bool = False) -> str:
        """The settled text that was not taken before; all text if the request has ended."""
        if ended and len(self._tokens) > self._read:  # an incomplete character
            before = self._decode(self._tokens[: self._read])
            self._text += self._decode(self._tokens)[len(before) :]
            self._tokens, self._read = [], 0
        settled = len(self._text) - (0 if ended else self._held())
        text = self._text[self._taken : settled]
        kept = max(0, settled - self._longest)
        self._text, self._taken = self._text[kept:], settled - kept
        return text

    def _held(self) -> int:
        """Length of the longest end of the text with which a stop string begins."""
        held = 0
        for stop in self._stops:
            ends = range(min(len(stop) - 1, len(self._text)), held, -1)
            held = next((n for n in ends if self._text.endswith(stop[:n])), held)
        return held
