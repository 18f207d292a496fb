"""A running request: what ends it, and stop strings found with a real byte-level tokenizer."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from models.requests.output_text import OutputText
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence

TEXT = [
    "def stop(self): return 'the end', None\n",
    "für die Straße, über 10 €: 日本語 🚲🚲 and more\n",
] * 20


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<end>"],
        show_progress=False,
    )
    made.train_from_iterator(TEXT, trainer)
    return made


@pytest.fixture(scope="module")
def as_bytes(tokenizer):
    """Token ids of a text, one byte each: the hardest way to write it."""
    order = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def encode(text):
        return [tokenizer.token_to_id(c) for c in order.pre_tokenize_str(text)[0][0]]

    return encode


def sequence_of(sampling, *, prompt=(5,), eos=(), decode=None):
    request = Request(id="a", prompt=prompt, sampling=sampling)
    return Sequence(request, eos=eos, decode=decode)


def feed(sequence, tokens):
    """Append until it ends; the number of tokens taken."""
    for count, token in enumerate(tokens, 1):
        if sequence.append(token):
            return count
    return None


def where_it_stops(stops, tokens, decode):
    """(tokens taken, stop string) by decoding everything anew at every token."""
    for count in range(1, len(tokens) + 1):
        text = decode(tokens[:count])
        if text.endswith("\ufffd"):
            continue
        found = [(text.find(s), s) for s in stops if s in text]
        if found:
            return count, min(found)[1]
    return None


# What ends a request


def test_length():
    sequence = sequence_of(Sampling(max_tokens=3))
    assert feed(sequence, [1, 2, 3]) == 3
    assert sequence.finish_reason == "length"
    assert sequence.generated == [1, 2, 3]
    assert (sequence.num_generated, sequence.num_left) == (3, 0)


def test_eos_and_stop_tokens_are_kept():
    assert feed(sequence_of(Sampling(), eos=(9,)), [1, 9, 2]) == 2
    sequence = sequence_of(Sampling(stop_token_ids=(2,)), eos=(9,))
    assert feed(sequence, [1, 2]) == 2
    assert sequence.finish_reason == "stop"
    assert sequence.generated == [1, 2]
    assert sequence.stop_text is None


def test_a_stop_at_the_last_token_is_a_stop():
    sequence = sequence_of(Sampling(max_tokens=2), eos=(9,))
    feed(sequence, [1, 9])
    assert sequence.finish_reason == "stop"


def test_ignoring_eos_keeps_other_stop_tokens():
    sampling = Sampling(ignore_eos=True, stop_token_ids=(2,))
    assert feed(sequence_of(sampling, eos=(9,)), [9, 9, 2]) == 3


def test_eos_in_the_prompt_ends_nothing():
    sequence = sequence_of(Sampling(), prompt=(9, 9), eos=(9,))
    assert not sequence.append(1)


def test_a_result_of_an_unfinished_request_is_cancelled():
    sequence = sequence_of(Sampling())
    sequence.append(4)
    sequence.rounds = 1
    result = sequence.result("identical")
    assert result.finish_reason == "cancelled"
    assert result.tokens == (4,)
    assert result.accepted_length == 1
    assert result.logprobs is None


# Stop strings

CASES = {
    "inside a token": (("to",), "def stop(self): return"),
    "across tokens": (("stop(self)",), "def stop(self): return 'the end'"),
    "across many tokens": (("return 'the end', None",), "x return 'the end', None\n y"),
    "multi-byte": (("€",), "10 €: more"),
    "in the middle of several characters": (("本",), "日本語"),
    "four bytes": (("🚲",), "a 🚲🚲 b"),
    "two at once, the first to begin": (("the end", "'the"), "return 'the end'"),
    "two of one place": (("the", "the end"), "return the end"),
    "a false start": (("aab",), "aaaab"),
    "not there": (("zebra",), "def stop(self): return 'the end'"),
    "a newline": (("\n",), "one\ntwo\n"),
    "overlapping itself": (("abab",), "xababab"),
    "longer than the text": (("abcdef" * 20,), "abcdef"),
}


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_stop_strings_end_a_request_where_they_appear(tokenizer, as_bytes, case, bytewise):
    stops, text = CASES[case]
    tokens = as_bytes(text) if bytewise else tokenizer.encode(text).ids
    sequence = sequence_of(Sampling(stop=stops, max_tokens=500), decode=tokenizer.decode)
    expected = where_it_stops(stops, tokens, tokenizer.decode)
    assert feed(sequence, tokens) == (expected and expected[0])
    assert sequence.stop_text == (expected and expected[1])
    assert sequence.finish_reason == ("stop" if expected else None)


@pytest.mark.parametrize("stops", [("er", "€"), ("日本", "\ufffd?"), ("\n\n", "ü"), ("🚲 a",)])
def test_any_tokens_stop_as_the_whole_text_says(tokenizer, stops):
    """Random tokens, most of them no valid text."""
    import random

    rng = random.Random(str(stops))
    pieces = tokenizer.encode("".join(TEXT[:2])).ids
    for _ in range(150):
        tokens = [
            rng.choice(pieces) if rng.random() < 0.8 else rng.randrange(1, 320) for _ in range(25)
        ]
        finder = OutputText(tokenizer.decode, stops=stops)
        found = next(
            ((count, s) for count, t in enumerate(tokens, 1) if (s := finder.push(t))), None
        )
        expected = where_it_stops(stops, tokens, tokenizer.decode)
        assert (found and found[0]) == (expected and expected[0])


def test_a_stop_string_before_the_minimum_does_not_count(tokenizer):
    tokens = tokenizer.encode("end end end").ids
    first = where_it_stops(("end",), tokens, tokenizer.decode)[0]
    sampling = Sampling(stop=("end",), min_tokens=first + 1)
    sequence = sequence_of(sampling, decode=tokenizer.decode)
    taken = feed(sequence, tokens)
    assert taken > first
    assert sequence.finish_reason == "stop"
    assert tokenizer.decode(tokens[:taken]).count("end") == 2


def test_the_prompt_is_not_searched(tokenizer):
    prompt = tuple(tokenizer.encode("the end").ids)
    sequence = sequence_of(Sampling(stop=("the end",)), prompt=prompt, decode=tokenizer.decode)
    assert feed(sequence, tokenizer.encode(" of it").ids) is None
    half = tuple(tokenizer.encode("the e").ids)
    sequence = sequence_of(Sampling(stop=("the end",)), prompt=half, decode=tokenizer.decode)
    assert feed(sequence, tokenizer.encode("nd").ids) is None


def test_text_is_decoded_a_few_tokens_at_a_time(tokenizer):
    longest = 0

    def decode(tokens):
        nonlocal longest
        longest = max(longest, len(tokens))
        return tokenizer.decode(tokens)

    finder = OutputText(decode, stops=("never",))
    for token in tokenizer.encode("".join(TEXT)).ids:
        finder.push(token)
    assert longest <= 8
