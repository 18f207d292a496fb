"""From what an output must look like to a grammar that is kept to: `Sampling.grammar`.

A grammar is a text in the JSON form of llguidance. JSON is written without whitespace, so that an
output has few tokens, and many of them are the only ones possible.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance import LLMatcher, gbnf_to_lark

from models.errors import InvalidOption

MAX_CHARACTERS = 2**16  # of a grammar


def of_json_schema(schema: Mapping[str, Any] | bool, name: str = "json_schema") -> str:
    """JSON that a schema allows. Raises InvalidOption, with `name` as the field."""
    try:
        text = json.dumps(schema, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InvalidOption(name, "...", f"a JSON schema: {error}") from None
    return _bounded(
        LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_flexible": False}), name
    )


def compact(schema: Mapping[str, Any]) -> str:
    """A schema as a part of a grammar in Lark's notation: of JSON without whitespace."""
    return json.dumps({**schema, "x-guidance": {"whitespace_flexible": False}}, allow_nan=False)


def of_json_object() -> str:
    """Any JSON object."""
    return of_json_schema({"type": "object"})


def of_regex(pattern: str, name: str = "regex") -> str:
    """Text that a regular expression matches as a whole. No look-around, no back-references."""
    return _bounded(LLMatcher.grammar_from_regex(pattern), name)


def of_choice(texts: Sequence[str], name: str = "choice") -> str:
    """One of several texts. Raises InvalidOption if there is none, or an empty one."""
    if not texts or not all(texts):
        raise InvalidOption(name, list(texts), "one text or more, none of them empty")
    options = " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)
    return of_lark(f"start: {options}", name)


def of_lark(text: str, name: str = "grammar") -> str:
    """A context-free grammar in Lark's notation."""
    return _bounded(LLMatcher.grammar_from_lark(text), name)


def of_grammar(text: str, name: str = "grammar") -> str:
    """A context-free grammar, in Lark's notation (`start: ...`) or in GBNF (`root ::= ...`).

    Raises InvalidOption for a GBNF grammar that cannot be read.
    """
    if "::=" not in text:
        return of_lark(text, name)
    _bounded(text, name)
    try:
        return LLMatcher.grammar_from_lark(gbnf_to_lark.gbnf_to_lark(text))
    except Exception as error:  # of its parser, in many forms
        raise InvalidOption(name, text[:80], f"a grammar in GBNF: {error}") from None


def _bounded(grammar: str, name: str) -> str:
    if len(grammar) > MAX_CHARACTERS:
        told = f"at most {MAX_CHARACTERS} characters; it has {len(grammar)}"
        raise InvalidOption(name, grammar[:80], told)
    return grammar
