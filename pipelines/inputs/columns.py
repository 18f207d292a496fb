"""Which Arrow type each JSON column gets: one that holds every value of the whole input.

A shape is "null", "bool", "int", "float", "string", ("list", shape) or {name: shape}. Values that
share no shape, integers over 64 bits and empty or very wide objects are kept as their JSON text.
"""

import json
from typing import Any, TypeAlias, cast

import pyarrow as pa

Shape: TypeAlias = "str | tuple[str, Shape] | dict[str, Shape]"

MAX_FIELDS = 256
_SCALARS = {bool: "bool", str: "string", float: "float", type(None): "null"}
_TYPES = {
    "null": pa.string(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
}


def shape_of(value: object) -> Shape:
    """The narrowest shape that holds one JSON value."""
    scalar = _SCALARS.get(type(value))
    if scalar is not None:
        return scalar
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "string"
    if isinstance(value, list):
        items: Shape = "null"
        for item in value:
            items = merge(items, shape_of(item))
        return ("list", items)
    fields = cast(dict[str, object], value)
    if not 0 < len(fields) <= MAX_FIELDS:
        return "string"
    return {name: shape_of(item) for name, item in fields.items()}


def merge(a: Shape, b: Shape) -> Shape:
    """The narrowest shape that holds whatever either holds."""
    if a == b or b == "null":
        return a
    if a == "null":
        return b
    if isinstance(a, tuple) and isinstance(b, tuple):
        return ("list", merge(a[1], b[1]))
    if isinstance(a, dict) and isinstance(b, dict):
        return merge_fields(a, b, limit=MAX_FIELDS)
    return "float" if {str(a), str(b)} == {"int", "float"} else "string"


def merge_fields(a: dict[str, Shape], b: dict[str, Shape], *, limit: int | None = None) -> Shape:
    """Both objects' fields, those of `a` first; JSON text where that is more than `limit`."""
    if a.keys() == b.keys() and a == b:
        return a
    fields = dict(a)
    for name, shape in b.items():
        fields[name] = merge(fields.get(name, "null"), shape)
    return "string" if limit is not None and len(fields) > limit else fields


def arrow_type(shape: Shape) -> pa.DataType:
    """The column type of a shape."""
    if isinstance(shape, tuple):
        return pa.list_(arrow_type(shape[1]))
    if isinstance(shape, dict):
        return pa.struct([(name, arrow_type(field)) for name, field in shape.items()])
    return _TYPES[shape]


def fit(value: object, kind: pa.DataType) -> Any:
    """A JSON value as a value of the Arrow type that its column was given."""
    if value is None:
        return None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if pa.types.is_list(kind) and isinstance(value, list):
        return [fit(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {field.name: fit(value.get(field.name), field.type) for field in kind}
    return float(value) if pa.types.is_floating(kind) else value  # type: ignore[arg-type]
