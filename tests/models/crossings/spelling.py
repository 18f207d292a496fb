"""What tokens spell, and grammars over that."""

from functools import cache
from typing import Any

from llguidance import LLTokenizer, TokenizerWrapper

from models.requests.grammar import Grammars

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def spell(tokens: Any) -> str:
    """One or two letters a token, so that a stop string may begin within one."""
    return "".join(piece(int(token)) for token in tokens)


def piece(token: int) -> str:
    return LETTERS[token % 26] * (1 + token // 26 % 2)


class Pieces:
    """What llguidance wants of a tokenizer; the last token is the end."""

    def __init__(self, vocab_size: int) -> None:
        self.eos_token_id, self.bos_token_id = vocab_size - 1, None
        self.special_token_ids = [self.eos_token_id]
        spelled = [piece(token).encode() for token in range(vocab_size - 1)]
        self.tokens = [
            p if p not in spelled[:i] else f"<{i}>".encode() for i, p in enumerate(spelled)
        ] + [b"<|end|>"]

    def __call__(self, text: bytes) -> list[int]:
        return [byte - 97 for byte in text]


@cache
def grammars(vocab_size: int) -> Grammars:
    return Grammars(LLTokenizer(TokenizerWrapper(Pieces(vocab_size))), vocab_size)
