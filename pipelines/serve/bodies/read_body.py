"""From the bytes of a body to its fields, or to the error that names the field."""

import difflib
import gc
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.fields import Body
from pipelines.serve.bodies.shown import shown

# Fields whose own fields are named in errors.
NESTED = {"stream_options", "prediction", "response_format", "structured_outputs", "tools"}
NESTED |= {"paceline"}
AnyBody = TypeVar("AnyBody", bound=Body)


def read_body(data: bytes, kind: type[AnyBody]) -> AnyBody:
    """The body; `null` is the same as leaving a field out.

    Raises ApiError (400) for what is no JSON object, for a field that is unknown, not supported or
    of the wrong type, and for options of a stream where none is asked for.
    """
    body = validated(_known(_parsed(data), kind), kind)
    if getattr(body, "stream_options", None) is not None and not getattr(body, "stream", False):
        told = "stream_options needs stream: true; without a stream, leave it out, or send null"
        raise ApiError(told, param="stream_options", code="invalid_value")
    return body


def validated(values: Mapping[str, Any], kind: type[AnyBody]) -> AnyBody:
    """A body of these fields. Raises ApiError (400)."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _refused(error, kind) from None
    except RecursionError:
        raise ApiError("the body is nested too deeply") from None


def _parsed(data: bytes) -> dict[str, Any]:
    gc.disable()  # which would look at a growing list again and again: 0.5 s for 4 MiB of []
    try:
        values = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(f"the body is not valid JSON: {error}") from None
    finally:
        gc.enable()
    if not isinstance(values, dict):
        raise ApiError(f"the body is {type(values).__name__}; a JSON object is needed")
    return values


def _neutral(name: str, value: object, kind: type[Body]) -> bool:
    """Whether the value of a field that is not supported asks for nothing."""
    if name not in kind.unsupported:
        return False
    return any(value == each and type(value) is type(each) for each in kind.neutral.get(name, ()))


def _known(values: Mapping[str, Any], kind: type[Body]) -> dict[str, Any]:
    """The fields that are the body's. Raises ApiError for the first one that asks for another."""
    kept = {}
    for name, value in values.items():
        if value is None:
            continue
        neutral = _neutral(name, value, kind)
        if name in kind.unsupported and not neutral:
            raise _unsupported(name, kind)
        if name in kind.model_fields:
            kept[name] = value
        elif not neutral:
            raise _unknown(name, kind)
    return kept


def _unsupported(name: str, kind: type[Body]) -> ApiError:
    told = f"{name} is not supported: {kind.unsupported[name]}"
    accepted = kind.neutral.get(name)
    if accepted:
        told += f" (accepted: {', '.join(map(repr, accepted))})"
    return ApiError(told, param=name, code="unsupported_parameter")


def _unknown(name: str, kind: type[Body]) -> ApiError:
    found = difflib.get_close_matches(name[:100], kind.model_fields, n=1, cutoff=0.5)
    known = f"did you mean {found[0]}?" if found else f"known are {', '.join(kind.model_fields)}"
    return ApiError(
        f"there is no field {name[:100]!r}; {known}", param=name[:100], code="unknown_parameter"
    )


def _refused(error: ValidationError, kind: type[Body]) -> ApiError:
    """The first of pydantic's errors, by the path of its field.

    Of a field that may have several types, the error of the type that the value has: the one that
    is not about a type, or else the one that was found furthest in its lists.
    """
    errors = error.errors(include_url=False, include_context=False, include_input=True)
    ours = [each for each in errors if each["loc"][:1] == errors[0]["loc"][:1]]
    of_range = (each for each in ours if not each["type"].endswith("_type"))
    first = next(of_range, max(ours, key=lambda each: _indices(each["loc"])))
    place = _place(first["loc"], kind)
    if first["type"] == "extra_forbidden":
        place = place[:100]
        return ApiError(f"there is no field {place!r}", param=place, code="unknown_parameter")
    if first["type"] == "missing":
        return ApiError(f"{place} is missing", param=place, code="missing_required_parameter")
    why = first["msg"][0].lower() + first["msg"][1:]
    told = f"{place}={shown(first['input'])} is not accepted: {why}"
    return ApiError(told, param=place, code="invalid_value")


def _indices(loc: Sequence[int | str]) -> list[int]:
    return [part for part in loc if isinstance(part, int)]


def _place(loc: Sequence[int | str], kind: type[Body]) -> str:
    """messages[0].role; without the names that pydantic gives the members of a union."""
    parts = [str(loc[0])] if loc else ["body"]
    for part in loc[1:]:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif parts[0] in NESTED and part.isidentifier():
            parts.append(f".{part}")
    return "".join(parts)
