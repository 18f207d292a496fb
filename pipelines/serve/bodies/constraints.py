"""Fields that constrain an answer's text: response_format and structured_outputs, as grammars."""

from typing import Annotated, Any, Literal

from pydantic import Field

from models.errors import InvalidOption
from models.requests import constraint
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.strict import Items, Strict

Schema = dict[str, Any]


class JsonSchema(Strict):
    """A schema and its name. `strict` is always true here: every answer is valid."""

    name: Annotated[str, Field(max_length=64)] = "schema"
    schema_: Annotated[Schema, Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Strict):
    """JSON that a schema allows."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class PlainFormat(Strict):
    """Text, or any JSON object."""

    type: Literal["text", "json_object"]


ResponseFormat = Annotated[PlainFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Strict):
    """vLLM's constraints: one of these."""

    json_: Annotated[Schema | str | None, Field(alias="json")] = None
    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[Items[str], Field(min_length=1, max_length=10_000)] | None = None
    grammar: Annotated[str, Field(min_length=1)] | None = None


def grammar_of(
    response_format: PlainFormat | JsonSchemaFormat | None,
    structured_outputs: StructuredOutputs | None,
) -> tuple[str, str] | None:
    """The grammar and the field that asks for it; None if none does. Raises ApiError (400)."""
    try:
        formatted = None if response_format is None else _of_format(response_format)
        structured = None if structured_outputs is None else _of_structured(structured_outputs)
    except InvalidOption as error:
        raise ApiError(str(error), param=error.field, code="invalid_value") from None
    if formatted and structured:
        told = "response_format and structured_outputs both constrain the text; give one of them"
        raise ApiError(told, param="structured_outputs", code="invalid_value")
    return formatted or structured


def _of_format(asked: PlainFormat | JsonSchemaFormat) -> tuple[str, str] | None:
    name = "response_format"
    if isinstance(asked, JsonSchemaFormat):
        return constraint.of_json_schema(asked.json_schema.schema_, name), name
    return (constraint.of_json_object(), name) if asked.type == "json_object" else None


def _of_structured(asked: StructuredOutputs) -> tuple[str, str]:
    given = {name: value for name in _MAKERS if (value := getattr(asked, name)) is not None}
    if len(given) != 1:
        names = ", ".join(name.rstrip("_") for name in given) or "nothing"
        told = f"one of json, regex, choice and grammar; it has {names}"
        raise InvalidOption("structured_outputs", sorted(given), told)
    ((name, value),) = given.items()
    return _MAKERS[name](value), "structured_outputs"


def _of_json(value: Schema | str) -> str:
    if isinstance(value, str):
        from pydantic_core import from_json

        try:
            value = from_json(value)
        except ValueError as error:
            raise InvalidOption("structured_outputs", "...", f"a JSON schema: {error}") from None
    if not isinstance(value, dict):
        raise InvalidOption("structured_outputs", value, "a JSON schema, which is an object")
    return constraint.of_json_schema(value, "structured_outputs")


_MAKERS: dict[str, Any] = {
    "json_": _of_json,
    "regex": lambda value: constraint.of_regex(value, "structured_outputs"),
    "choice": lambda value: constraint.of_choice(value, "structured_outputs"),
    "grammar": lambda value: constraint.of_grammar(value, "structured_outputs"),
}
