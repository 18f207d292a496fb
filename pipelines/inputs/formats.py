"""The column `response_format` of an input: what a row's completion must look like, as a grammar.

It has the form of OpenAI's field: {"type": "text" | "json_object"}, or {"type": "json_schema",
"json_schema": {"schema": ...}}; also as JSON text.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from models.errors import InvalidOption
from models.requests import constraint

FORMAT = "response_format"
KNOWN = 256  # formats whose grammars are kept
KINDS = "text, json_object or json_schema"


def grammar_of_row(value: object) -> str | None:
    """The grammar of a row; None if there is none. Null members, as Parquet has them, are left out.

    Raises ValueError, with the reason, for what is no format.
    """
    if value is None:
        return None
    return _grammar(value if isinstance(value, str) else json.dumps(_without_nulls(value)))


@lru_cache(KNOWN)
def _grammar(text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"field {FORMAT!r} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"field {FORMAT!r} is {value!r:.80}, not an object with a type")
    kind, given = value.get("type"), value.get("json_schema")
    allowed = {"type", "json_schema"} if kind == "json_schema" else {"type"}
    if kind not in ("text", "json_object", "json_schema") or set(value) - allowed:
        raise ValueError(f"field {FORMAT!r} is {value!r:.80}; its type may be {KINDS}")
    if kind == "text":
        return None
    if kind == "json_object":
        return constraint.of_json_object()
    schema = given.get("schema") if isinstance(given, dict) else None
    if not isinstance(schema, dict):
        raise ValueError(f"field {FORMAT!r} has no json_schema.schema, which is an object")
    try:
        return constraint.of_json_schema(schema, FORMAT)
    except InvalidOption as error:
        raise ValueError(str(error)) from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
