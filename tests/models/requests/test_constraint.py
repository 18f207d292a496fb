"""From schemas, patterns and choices to grammars of the demo tokenizer, and what is refused."""

import json
from functools import cache

import pytest

from models.errors import InvalidOption, InvalidRequest, UnsupportedCheckpoint
from models.requests import constraint
from models.requests.grammar import Grammars, load_grammars
from models.requests.request import Sampling

TARGET = "examples/models/text-target"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Tom", "Ann"]}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@cache
def known() -> Grammars:
    return load_grammars(TARGET, 2048, (0,))


def accepts(grammar: str, text: str) -> bool:
    """Whether a text may come, and end there."""
    state = known().begin(grammar)
    tokens = known()._tokenizer.tokenize_str(text)
    if not all(state.consume(token) for token in tokens):
        return False
    mask = state.mask()
    return state.is_complete or (mask is not None and bool(mask[0]))


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (constraint.of_json_schema(SCHEMA), '{"name":"Tom","age":3}', '{"name":"Tim","age":3}'),
        (constraint.of_json_schema(SCHEMA), '{"name":"Ann","age":-1}', '{ "name":"Ann","age":1}'),
        (constraint.of_json_object(), '{"a":[1,{"b":null}]}', "[1]"),
        (constraint.of_regex("[a-c]{2}d?"), "abd", "abda"),
        (constraint.of_choice(["yes", 'no "way"']), 'no "way"', "no"),
        (constraint.of_grammar('start: "a" start "b" | "x"'), "aaxbb", "aaxb"),
        (constraint.of_grammar('root ::= "a" [0-9]+'), "a12", "a"),
    ],
)
def test_what_a_grammar_accepts(grammar, good, bad) -> None:
    assert accepts(grammar, good)
    assert not accepts(grammar, bad)


def test_compact_json_forces_many_tokens() -> None:
    state = known().begin(constraint.of_json_schema(SCHEMA))
    forced = state.forced()
    assert known()._tokenizer.decode_str(forced).startswith('{"name":"')
    assert all(state.mask(forced[:count])[token] for count, token in enumerate(forced))


@pytest.mark.parametrize(
    ("grammar", "told"),
    [
        (constraint.of_regex("(?=a)b"), "look-around"),
        (constraint.of_json_schema({"not": {}}), "not"),
        (constraint.of_grammar("start: nothing"), "unknown name"),
    ],
)
def test_grammars_that_cannot_be_kept_to_are_refused_with_the_reason(grammar, told) -> None:
    with pytest.raises(InvalidOption, match=told):
        known().check(grammar, "response_format")
    with pytest.raises(InvalidRequest, match=told):
        known().begin(grammar)


def test_descriptions_that_are_none_are_refused() -> None:
    for wrong in ([], ["a", ""]):
        with pytest.raises(InvalidOption, match="one text or more"):
            constraint.of_choice(wrong)
    with pytest.raises(InvalidOption, match="at most"):
        constraint.of_json_schema({"enum": ["x" * 10] * 10_000})
    with pytest.raises(InvalidOption, match="GBNF"):
        constraint.of_grammar("root ::= (")
    with pytest.raises(InvalidOption, match="ignore_eos"):
        Sampling(grammar=constraint.of_json_object(), ignore_eos=True)
    with pytest.raises(UnsupportedCheckpoint, match=r"no tokenizer\.json"):
        load_grammars("examples", 10, ())


def test_a_mask_is_a_function_of_the_tokens(tmp_path) -> None:
    """Looking ahead leaves no trace, also where it meets a token that is not allowed."""
    state, other = (known().begin(constraint.of_json_schema(SCHEMA)) for _ in range(2))
    tokens = known()._tokenizer.tokenize_str(json.dumps({"name": "Tom"})[:8].replace(" ", ""))
    state.mask(tokens)
    assert state.mask([*tokens, 1, 2, 3]) is None
    assert (state.mask() == other.mask()).all()
    assert state.consume(tokens[0])
    assert other.consume(tokens[0])
    assert (state.mask(tokens[1:]) == other.mask(tokens[1:])).all()
    assert not state.consume(5)
    assert (state.mask() == other.mask()).all()


def test_drafts_may_have_ids_without_a_text() -> None:
    padded = load_grammars(TARGET, 2060, (0,))
    state = padded.begin(constraint.of_regex("[a-c]+"))
    (letter,) = padded._tokenizer.tokenize_str("a")
    mask = state.mask()
    assert mask is not None
    assert mask.shape == (2060,)
    assert not mask[2048:].any()
    assert state.mask([letter, 2055]) is None
    assert state.consume(letter)  # the draft left no trace
    assert not state.is_complete
