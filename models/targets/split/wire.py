"""Messages between ranks as bytes: dataclasses, tuples, whole numbers and arrays.

A message is the length of its outline (8 bytes), the outline as JSON, and the arrays one after the
other.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH = 8
KINDS = ("int64", "bool")  # of arrays
Array = NDArray[Any]


def encode(message: object) -> bytes:
    """A message of such parts. Raises TypeError for any other."""
    arrays: list[Array] = []
    outline = json.dumps(_outline(message, arrays)).encode()
    parts = [len(outline).to_bytes(LENGTH, "little"), outline]
    return b"".join([*parts, *(array.tobytes() for array in arrays)])


def decode(data: bytes, kinds: Mapping[str, type]) -> Any:
    """The message; `kinds`: the dataclasses that it may hold, by name."""
    end = LENGTH + int.from_bytes(data[:LENGTH], "little")
    return _read(json.loads(data[LENGTH:end]), _Arrays(data, end), kinds)


class _Arrays:
    """Reads the arrays of a message in their order."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._start = data, start

    def next(self, kind: str, shape: list[int]) -> Array:
        """The next one, which may be written to."""
        count = math.prod(shape)
        found = np.frombuffer(self._data, dtype=kind, count=count, offset=self._start)
        self._start += found.nbytes
        return found.reshape(shape).copy()


def _outline(value: Any, arrays: list[Array]) -> Any:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, np.ndarray) and value.dtype.name in KINDS:
        arrays.append(value)
        return {"array": value.dtype.name, "shape": value.shape}
    if isinstance(value, tuple):
        return [_outline(item, arrays) for item in value]
    if is_dataclass(value):
        held = {f.name: _outline(getattr(value, f.name), arrays) for f in fields(value)}
        return {"kind": type(value).__name__, "fields": held}
    raise TypeError(f"{value!r} cannot be sent to other ranks")


def _read(outline: Any, arrays: _Arrays, kinds: Mapping[str, type]) -> Any:
    if isinstance(outline, list):
        return tuple(_read(item, arrays, kinds) for item in outline)
    if not isinstance(outline, dict):
        return outline
    if "array" in outline:
        return arrays.next(outline["array"], outline["shape"])
    held = outline["fields"].items()
    return kinds[outline["kind"]](**{name: _read(item, arrays, kinds) for name, item in held})
