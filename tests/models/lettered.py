"""Grammars over a vocabulary of letters, whose last token is the end."""

from functools import cache

from llguidance import LLTokenizer, TokenizerWrapper

from models.requests.grammar import Grammars


class Letters:
    """What llguidance wants of a tokenizer: `vocab_size` tokens, a letter each but the last."""

    def __init__(self, vocab_size: int) -> None:
        self.eos_token_id, self.bos_token_id = vocab_size - 1, None
        self.special_token_ids = [self.eos_token_id]
        self.tokens = [bytes([97 + token]) for token in range(vocab_size - 1)] + [b"<|end|>"]

    def __call__(self, text: bytes) -> list[int]:
        return [byte - 97 for byte in text]


@cache
def grammars(vocab_size: int) -> Grammars:
    return Grammars(LLTokenizer(TokenizerWrapper(Letters(vocab_size))), vocab_size)
