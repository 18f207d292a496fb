"""Options as dataclass fields: told once, used for --help, YAML, Python and the type checks."""

import difflib
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from models.errors import InvalidOption

T = TypeVar("T")


def option(
    told: str,
    *,
    default: Any = MISSING,
    factory: Any = MISSING,
    decides: bool = False,
    judges: bool = False,
    choices: Collection[str] | None = None,
    metavar: str | None = None,
    group: str | None = None,
) -> Any:
    """A dataclass field with what --help says of it; without a default it is required.

    `decides`: its value decides what the output holds. `judges`: it decides only how the output is
    judged, and may change when all else is made. `group`: the heading it stands under.
    """
    metadata = {
        "help": told,
        "decides": decides or judges,
        "judges": judges,
        "choices": choices,  # kept as it is: a registry may grow
        "metavar": metavar,
        "group": group,
    }
    return field(default=default, default_factory=factory, metadata=metadata)


def from_mapping(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance from names and values, as YAML and Python callers give them.

    Raises:
        InvalidOption: a name is unknown (the nearest known one is named), a value is of another
            type than the field's or out of range, or a required one is missing.
    """
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise InvalidOption(str(name), value, f"there is no such option{_nearest(name, known)}")
    for name, found in known.items():
        if name not in values and found.default is MISSING and found.default_factory is MISSING:
            raise InvalidOption(name, None, f"it must be given: {found.metadata['help']}")
    hints = get_type_hints(cls)
    return cls(**{name: shaped(value, hints[name]) for name, value in values.items()})


def shaped(value: Any, hint: Any) -> Any:
    """A list as the tuple, a whole number as the float that the field's type asks for."""
    if get_origin(hint) is tuple and isinstance(value, list | str):
        return (value,) if isinstance(value, str) else tuple(value)
    if hint is float and type(value) is int:
        return float(value)
    return value


def check_types(config: Any) -> None:
    """Raise InvalidOption where a field holds another type than it says."""
    hints = get_type_hints(type(config))
    for found in fields(config):
        value, hint = getattr(config, found.name), hints[found.name]
        if not fits(value, hint):
            raise InvalidOption(found.name, value, f"{describe(hint)} is needed")
        choices = found.metadata.get("choices")
        if choices and value is not None and value not in choices:
            raise InvalidOption(found.name, value, f"one of {', '.join(choices)}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type; True and False are no numbers here, whole numbers floats."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, inner[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            fits(key, inner[0]) and fits(item, inner[1]) for key, item in value.items()
        )
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def describe(hint: Any) -> str:
    """A type in words."""
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part) for part in inner)
    if origin is tuple:
        return f"a list of which each is {describe(inner[0])}"
    if origin is not None:
        return f"a mapping from {describe(inner[0])} to {describe(inner[1])}"
    return names.get(hint, "nothing")


def deciding(config: Any) -> dict[str, Any]:
    """The values that decide what the output holds."""
    return {
        found.name: _plain(getattr(config, found.name))
        for found in fields(config)
        if found.metadata["decides"]
    }


def judging(config: Any) -> list[str]:
    """The names among them that decide only how the output is judged."""
    return [found.name for found in fields(config) if found.metadata["judges"]]


def as_dict(config: Any) -> dict[str, Any]:
    """Every option's value, as JSON and YAML can hold it."""
    return {found.name: _plain(getattr(config, found.name)) for found in fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else value


def _nearest(name: object, known: Mapping[str, Field[Any]]) -> str:
    wanted = str(name).replace("-", "_")
    found = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else f"; known are {', '.join(known)}"
