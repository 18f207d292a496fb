"""Text of a growing output, released piece by piece, with tokenizers of two kinds."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from models.requests.output_text import CONTEXT, OutputText
from models.requests.request import Result
from pipelines.modality.texts import completions
from tests.models.requests.test_sequence import TEXT, as_bytes, tokenizer

__all__ = ["as_bytes", "tokenizer"]
PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that are their own letters
BYTES = [*PLAIN, *(b for b in range(256) if b not in PLAIN)]
LETTERS = [chr(b) if b in PLAIN else chr(256 + i) for i, b in enumerate(BYTES, -len(PLAIN))]
STOPS = ((), ("er", "€"), ("日本", "\n"), (" and", "d m"), ("aab",))


def pieces_of(text, tokens, sizes):
    """The released texts, taken after so many tokens each; ends at a stop string."""
    out, left = [], list(tokens)
    while left:
        for token in [left.pop(0) for _ in range(min(next(sizes), len(left)))]:
            if text.push(token) is not None:
                text.cut()
                return [*out, text.take(ended=True)], True
        out.append(text.take(ended=not left))
    return out, False


def sizes_of(rng):
    while True:
        yield rng.randrange(1, 5)


@pytest.mark.parametrize("stops", STOPS)
def test_pieces_are_the_text_up_to_the_stop_string(tokenizer, stops):
    """Random tokens, most of them no valid text, taken a few at a time."""
    rng = random.Random(str(stops))
    known = tokenizer.encode("".join(TEXT[:2])).ids
    stopped = 0
    for _ in range(150):
        tokens = [
            rng.choice(known) if rng.random() < 0.8 else rng.randrange(1, 320) for _ in range(25)
        ]
        text = OutputText(tokenizer.decode, stops=stops, keep=True)
        pieces, ended = pieces_of(text, tokens, sizes_of(rng))
        whole = tokenizer.decode(tokens)
        if ended:
            whole = whole[: min(at for s in stops if (at := whole.find(s)) >= 0)]
        assert "".join(pieces) == whole
        assert ("\ufffd" in "".join(pieces[:-1])) <= ("\ufffd" in whole)
        stopped += ended
    assert bool(stopped) == bool(stops and stops != ("aab",))


@pytest.fixture(scope="module")
def spaced():
    """A tokenizer that leaves out a text's first space and spells rare characters in bytes."""
    words = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁the", "▁end", "▁of", "it", "▁"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return made


class Codec:
    def __init__(self, made):
        self._made = made

    def decode_batch(self, texts):
        return self._made.decode_batch(texts)


@pytest.mark.parametrize("kind", ["tokenizer", "spaced"])
def test_a_stream_is_the_completion_that_a_job_writes(kind, request):
    """The text that follows the prompt, its first space included, up to the stop string."""
    made = request.getfixturevalue(kind)
    rng, stopped = random.Random(kind), 0
    if kind == "spaced":
        size = made.get_vocab_size()
        known = [[i] for i in range(257, size)] + [[1 + b for b in "€".encode()], [1 + 65]]
        stops = (" end", "€ the", "A")
    else:
        known = [[i] for i in made.encode("".join(TEXT[:2])).ids]
        stops = (" and", "€")
    for _ in range(200):
        words = [rng.choice(known) for _ in range(22)]
        prompt = [t for word in words[:10] for t in word] + known[0]
        tokens = [t for word in words[10:] for t in word]
        chosen = stops if rng.random() < 0.5 else ()
        text = OutputText(made.decode, stops=chosen, head=prompt[-CONTEXT:], keep=True)
        taken, pieces, stop = [], [], None
        for token in tokens:
            taken.append(token)
            stop = text.push(token)
            if stop is not None:
                text.cut()
                break
            pieces.append(text.take())
        pieces.append(text.take(ended=True))
        result = Result(id="a", tokens=tuple(taken), finish_reason="stop", stop_text=stop)
        assert ["".join(pieces)] == completions([prompt], [result], Codec(made))
        stopped += stop is not None
    assert stopped > 10


@pytest.mark.parametrize("kind", ["tokenizer", "spaced"])
def test_bytes_that_are_no_text_are_decoded_a_few_at_a_time(kind, request):
    """Random bytes with a character among them now and then: the same text, in bounded work."""
    made, rng, longest = request.getfixturevalue(kind), random.Random(3), 0
    spelled = {
        b: 1 + b if kind == "spaced" else made.token_to_id(letter)
        for b, letter in zip(BYTES, LETTERS, strict=True)
    }
    written = b"".join(
        "€".encode() if rng.random() < 0.1 else bytes([rng.randrange(0x80, 0xC0)])
        for _ in range(400)
    )

    def decode(tokens):
        nonlocal longest
        longest = max(longest, len(tokens))
        return made.decode(tokens)

    text = OutputText(decode, keep=True)
    pieces = []
    for byte in written:
        text.push(spelled[byte])
        pieces.append(text.take())
    pieces.append(text.take(ended=True))
    assert longest < 50
    if kind == "tokenizer":  # the other one writes a run of bytes with an error as errors alone
        assert "".join(pieces) == made.decode([spelled[b] for b in written])


def test_what_is_kept_is_bounded(tokenizer):
    """A stop string needs the end of the text alone, a stream what was not taken."""
    for keep in (False, True):
        text = OutputText(tokenizer.decode, stops=("never",), keep=keep)
        for token in tokenizer.encode("".join(TEXT)).ids:
            text.push(token)
            if keep:
                text.take()
            assert len(text._text) < 40
