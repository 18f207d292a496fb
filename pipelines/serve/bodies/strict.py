"""Objects in bodies: their fields and no others, each of its own type.

A body may be wrong a million times. The first error is told, so no others are looked for: each
costs microseconds and hundreds of bytes, on the event loop that all streams share.
"""

from itertools import islice
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticKnownError

Item = TypeVar("Item")
Items = Annotated[list[Item], Field(fail_fast=True)]  # FailFast cannot be hashed


class Strict(BaseModel):
    """Whole numbers are not texts, nor is 1 true; `null` is the same as leaving a field out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        """Of the fields that are unknown, the first one alone is left to be refused."""
        if not isinstance(values, dict):
            return values
        known = [field.alias or name for name, field in cls.model_fields.items()]
        given = {name: values[name] for name in known if values.get(name) is not None}
        others = (name for name in values if name not in known and values[name] is not None)
        return given | {name: values[name] for name in islice(others, 1)}


def at_most(number: int) -> BeforeValidator:
    """Of a dictionary, counted before its items are looked at."""

    def check(given: Any) -> Any:
        if isinstance(given, dict) and len(given) > number:
            told = {"field_type": "Dictionary", "max_length": number, "actual_length": len(given)}
            raise PydanticKnownError("too_long", told)
        return given

    return BeforeValidator(check)
