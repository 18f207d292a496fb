"""From the bytes of a body to its fields, or to the error that names the field."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.fields import Body

# Fields whose own fields are named in errors.
NESTED = {"stream_options", "prediction", "response_format", "structured_outputs", "tools"}
NESTED |= {"paceline"}
AnyBody = TypeVar("AnyBody", bound=Body)


def read_body(data: bytes, kind: type[AnyBody]) -> AnyBody:
    """The body; `null` is the same as leaving a field out.

    Raises ApiError (400) for what is no JSON object, and for a field that is unknown, not supported
    or of the wrong type.
    """
    values = {name: value for name, value in _parsed(data).items() if value is not None}
    kept = {
        name: value
        for name, value in values.items()
        if name in kind.model_fields or not _neutral(name, value, kind)
    }
    _refuse_others(kept, kind)
    return validated(kept, kind)


def validated(values: Mapping[str, Any], kind: type[AnyBody]) -> AnyBody:
    """A body of these fields. Raises ApiError (400)."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _refused(error, kind) from None
    except RecursionError:
        raise ApiError("the body is nested too deeply") from None


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        values = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(f"the body is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ApiError(f"the body is {type(values).__name__}; a JSON object is needed")
    return values


def _neutral(name: str, value: object, kind: type[Body]) -> bool:
    """Whether the value of a field that is not supported asks for nothing."""
    if name not in kind.unsupported:
        return False
    return any(value == each and type(value) is type(each) for each in kind.neutral.get(name, ()))


def _refuse_others(values: Mapping[str, Any], kind: type[Body]) -> None:
    """Raise ApiError for the first field that is not one of the body's."""
    for name, value in values.items():
        known = name not in kind.unsupported or _neutral(name, value, kind)
        if name in kind.model_fields and known:
            continue
        reason = kind.unsupported.get(name)
        if reason is not None:
            told = f"{name} is not supported: {reason}"
            accepted = kind.neutral.get(name)
            if accepted:
                told += f" (accepted: {', '.join(map(repr, accepted))})"
            raise ApiError(told, param=name, code="unsupported_parameter")
        raise _unknown(name, kind)


def _unknown(name: str, kind: type[Body]) -> ApiError:
    found = difflib.get_close_matches(name, kind.model_fields, n=1, cutoff=0.5)
    known = f"did you mean {found[0]}?" if found else f"known are {', '.join(kind.model_fields)}"
    return ApiError(
        f"there is no field {name[:100]!r}; {known}", param=name[:100], code="unknown_parameter"
    )


def _refused(error: ValidationError, kind: type[Body]) -> ApiError:
    """The first of pydantic's errors, by the path of its field.

    Of a field that may have several types, the error of the type that the value has.
    """
    errors = error.errors(include_url=False, include_context=False, include_input=True)
    ours = [each for each in errors if each["loc"][:1] == errors[0]["loc"][:1]]
    of_range = (each for each in ours if not each["type"].endswith("_type"))
    first = next(of_range, errors[0])
    place = _place(first["loc"], kind)
    if first["type"] == "extra_forbidden":
        return ApiError(f"there is no field {place!r:.100}", param=place, code="unknown_parameter")
    if first["type"] == "missing":
        return ApiError(f"{place} is missing", param=place, code="missing_required_parameter")
    value = repr(first["input"])
    shown = value if len(value) <= 80 else f"{value[:80]}..."
    told = f"{place}={shown} is not accepted: {first['msg'][0].lower()}{first['msg'][1:]}"
    return ApiError(told, param=place, code="invalid_value")


def _place(loc: Sequence[int | str], kind: type[Body]) -> str:
    """messages[0].role; without the names that pydantic gives the members of a union."""
    parts = [str(loc[0])] if loc else ["body"]
    for part in loc[1:]:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif parts[0] in NESTED and part.isidentifier():
            parts.append(f".{part}")
    return "".join(parts)
