"""Documents of YAML text that know on which line each of their values stands."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from models.errors import InvalidOption

Path = tuple[str | int, ...]
LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One document. `place`: the overlay or file it comes from. `first`: line of `node`'s text."""

    place: str
    data: Mapping[str, Any]
    node: yaml.Node
    lines: Sequence[str]
    first: int = 0

    @property
    def kind(self) -> str:
        """RayCluster, Secret, ..."""
        return str(self.data.get("kind", ""))

    @property
    def name(self) -> str:
        """In its metadata."""
        return str(mapping(self.data.get("metadata")).get("name", ""))

    def at(self, *path: str | int) -> Any:
        """The value at a path; None if there is none."""
        found: Any = self.data
        for step in path:
            try:
                found = found[step]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def line(self, path: Path) -> int:
        """The line, from 1, of the value at a path, or of what is nearest above it."""
        node, line = self.node, self.node.start_mark.line
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return self.first + line + 1

    def text(self, path: Path) -> str:
        """That line."""
        return self.lines[self.line(path) - 1]

    def inner(self, path: Path) -> "Manifest":
        """The document in the text at a path, such as serveConfigV2.

        Raises InvalidOption if it is no YAML mapping.
        """
        node = self.node
        for step in path:
            found = _child(node, step)
            assert found is not None, "the path exists"
            node = found[1]
        block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
        first = self.first + node.start_mark.line + (1 if block else 0)
        inner = parse(str(node.value), self.place)
        if len(inner) != 1:
            raise InvalidOption(str(path[-1]), str(node.value)[:40], "one YAML document is needed")
        made = inner[0]
        return Manifest(
            place=self.place, data=made.data, node=made.node, lines=self.lines, first=first
        )


def parse(text: str, place: str) -> list[Manifest]:
    """The documents of a text.

    Raises InvalidOption: it is no YAML, or a document is no mapping.
    """
    loader = LOADER(text)
    lines = text.splitlines() or [""]
    try:
        return [
            Manifest(place=place, data=data, node=node, lines=lines)
            for node, data in _documents(loader, place)
        ]
    except yaml.YAMLError as error:
        raise InvalidOption("folder", place, " ".join(str(error).split())) from error
    finally:
        loader.dispose()


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping; what is none, which the schemas tell, as an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The same of each item of a list."""
    return [mapping(item) for item in value] if isinstance(value, list) else []


def _documents(loader: Any, place: str) -> Iterator[tuple[yaml.Node, Any]]:
    while loader.check_node():
        node = loader.get_node()
        data: Any = None if node is None else loader.construct_document(node)
        if node is None or data is None:
            continue
        if not isinstance(data, dict):
            raise InvalidOption("folder", place, "each YAML document must be a mapping")
        yield node, data


def _child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    """The line of a key or an item, and its value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    return None
