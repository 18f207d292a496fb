"""Options on the command line and in YAML: made from a configuration's fields."""

import argparse
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeAlias, Union, get_args, get_origin, get_type_hints

import yaml

from cluster.logs import FORMATS, LEVELS
from cluster.storage import storage
from models.errors import InvalidOption

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

MERGE = "tag:yaml.org,2002:merge"  # of the key `<<`


def add_parser(
    subparsers: Subparsers, name: str, *, usage: str, summary: str, about: str, example: str
) -> argparse.ArgumentParser:
    """A subcommand without flags yet; `summary` is its line in the list of commands."""
    return subparsers.add_parser(
        name,
        usage=usage,
        help=summary,
        description=about,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_command(
    subparsers: Subparsers,
    name: str,
    cls: type,
    *,
    run: Callable[[argparse.Namespace], int],
    usage: str,
    summary: str,
    about: str,
    example: str,
    line: str,
) -> argparse.ArgumentParser:
    """A subcommand with a flag per field of `cls`, and --config for a file of them.

    `line` is an example of a line of the file.
    """
    parser = add_parser(
        subparsers, name, usage=usage, summary=summary, about=about, example=example
    )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help=f"read options from a YAML file ({line})"
    )
    add_flags(parser, cls)
    add_log_flags(parser)
    parser.set_defaults(run=run)
    return parser


def add_log_flags(parser: argparse.ArgumentParser) -> None:
    """How the command's processes log."""
    group = parser.add_argument_group("logs")
    group.add_argument(
        "--log-level",
        choices=LEVELS,
        help="log what is at least so important; default: warning, or PACELINE_LOG_LEVEL",
    )
    group.add_argument(
        "--log-format",
        choices=FORMATS,
        help="lines of text, or a JSON object on each; default: text, or PACELINE_LOG_FORMAT",
    )


def read_options(options: argparse.Namespace, cls: type) -> dict[str, Any]:
    """The file's options, and before them those of the command line."""
    values = read_yaml(options.config) if options.config else {}
    return values | given(options, cls)


def add_flags(parser: argparse.ArgumentParser, cls: type) -> None:
    """A flag per field, under its group's heading; what is not given stays out of the namespace."""
    hints = get_type_hints(cls)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for found in fields(cls):
        title = found.metadata["group"] or "options"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        groups[title].add_argument(
            "--" + found.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            help=_help(found),
            **_reading(found, hints[found.name]),
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
        values = yaml.load(data, _Once)
    except _Twice as error:
        raise InvalidOption("config", path, str(error)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidOption("config", path, f"a YAML file is needed: {reason}") from error
    if not isinstance(values, dict):
        raise InvalidOption("config", path, "it must hold lines of `option: value`")
    return {str(name): value for name, value in values.items()}


class _Twice(yaml.YAMLError):
    """A key stands twice in a mapping."""


class _Once(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML's own loader silently takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping as it is written, merges (`<<`) not done yet; raises _Twice."""
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise _Twice(f"{key.value!r} stands twice, again in line {line}")
                seen.add(key.value)
        return node


def _reading(found: "Field[Any]", hint: Any) -> dict[str, Any]:
    """How argparse reads a field of this type."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if found.metadata["choices"]:
        return {"choices": found.metadata["choices"]}
    out: dict[str, Any] = {}
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        kind, out = inner[0], {"nargs": "+", "action": "extend"}
    elif origin is not None and origin not in (Union, types.UnionType):
        kind, out = Mapping, {"nargs": "+", "action": "extend"}
    else:
        kind = hint
    reader, metavar = _reader(kind)
    return out | {"type": reader, "metavar": found.metadata["metavar"] or metavar}


def _reader(kind: Any) -> tuple[Callable[[str], Any], str]:
    """What reads one word of a type, and what the help calls it."""
    parts = [part for part in get_args(kind) or (kind,) if part is not types.NoneType]
    if int in parts and str in parts:
        return _number_or_text, "N"
    known: dict[Any, tuple[Callable[[str], Any], str]] = {
        int: (_whole, "N"),
        float: (_number, "X"),
        str: (str, "TEXT"),
        Mapping: (_pair, "TOKEN=BIAS"),
    }
    return known[parts[0]]


def _help(found: "Field[Any]") -> str:
    told = str(found.metadata["help"]).replace("%", "%%")
    if found.default is MISSING and found.default_factory is MISSING:
        return f"{told} (required)"
    default = found.default
    shown = default not in (MISSING, None, ()) and not isinstance(default, bool)
    words = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{told} (default: {words})" if shown else told


def _number_or_text(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _pair(text: str) -> tuple[int, float]:
    token, separator, bias = text.partition("=")
    try:
        if separator:
            return int(token), float(bias)
    except ValueError:
        pass
    told = "TOKEN=BIAS is needed, a token id and a number, such as 42=-1.5"
    raise argparse.ArgumentTypeError(f"{text!r} is not accepted: {told}")


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, tuple) for item in value)
