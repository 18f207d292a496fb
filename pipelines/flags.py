"""Options on the command line and in YAML: made from a configuration's fields."""

import argparse
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from cluster import storage
from models.errors import InvalidOption


def add_flags(parser: argparse.ArgumentParser, cls: type) -> None:
    """One flag per field. What is not given stays out of the namespace."""
    hints = get_type_hints(cls)
    for found in fields(cls):
        flag = "--" + found.name.replace("_", "-")
        parser.add_argument(
            flag, default=argparse.SUPPRESS, help=_help(found), **_reading(found, hints[found.name])
        )


def given(options: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The values of the flags that were given."""
    names = {found.name for found in fields(cls)}
    values = {name: value for name, value in vars(options).items() if name in names}
    return {name: dict(v) if _is_pairs(v) else v for name, v in values.items()}


def read_yaml(path: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InvalidOption: it holds something else.
        StorageError: it cannot be read.
    """
    data = storage.read_bytes(storage.normalize(path))
    try:
        values = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidOption("config", path, f"a YAML file is needed: {reason}") from error
    if not isinstance(values, dict):
        raise InvalidOption("config", path, "it must hold lines of `option: value`")
    return {str(name): value for name, value in values.items()}


def _reading(found: "Field[Any]", hint: Any) -> dict[str, Any]:
    """How argparse reads a field of this type."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    out: dict[str, Any] = {"metavar": found.metadata["metavar"] or _METAVARS.get(hint)}
    if found.metadata["choices"]:
        return {"choices": found.metadata["choices"]}
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        return out | {"nargs": "+", "type": inner[0]}
    if origin is not None and origin not in (Union, types.UnionType):
        return out | {"nargs": "+", "type": _pair}
    if inner == (int, str):
        return out | {"type": _number_or_text}
    kind = next((part for part in inner if part is not types.NoneType), hint)
    return {"metavar": _METAVARS.get(kind), **_known(out), "type": kind}


_METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _help(found: "Field[Any]") -> str:
    told = str(found.metadata["help"]).replace("%", "%%")
    if found.default is MISSING and found.default_factory is MISSING:
        return f"{told} (required)"
    default = found.default
    shown = default not in (MISSING, None, ()) and not isinstance(default, bool)
    return f"{told} (default: {default})" if shown else told


def _number_or_text(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _pair(text: str) -> tuple[int, float]:
    token, separator, bias = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not TOKEN=BIAS, like 42=-1.5")
    return int(token), float(bias)


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, tuple) for item in value)
