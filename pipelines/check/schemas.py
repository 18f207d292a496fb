"""KubeRay's custom resources against their schemas: unknown keys, types, and CEL rules.

The schemas themselves forbid no unknown key, so every object that lists its properties is closed
here, as the API server warns of such keys and drops them. Defaults count as given.
"""

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path as Folder
from typing import Any

import yaml

from models.errors import InvalidOption
from pipelines.check.manifest import Manifest, Path
from pipelines.check.problem import Problem

VERSION = "v1"
GROUP = "ray.io"
Schema = Mapping[str, Any]


def read_schemas(folder: str) -> dict[str, Schema]:
    """The schema of each kind, from the custom resource definitions in a folder.

    Raises InvalidOption: there are none.
    """
    found: dict[str, Schema] = {}
    for file in sorted(Folder(folder).glob("*.yaml")):
        said = yaml.load(file.read_text("utf-8"), Loader=yaml.CSafeLoader)  # a safe loader, in C
        if isinstance(said, dict) and said.get("kind") == "CustomResourceDefinition":
            spec = said["spec"]
            for version in spec["versions"]:
                if version["name"] == VERSION and spec["group"] == GROUP:
                    found[spec["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    if not found:
        raise InvalidOption("schemas", folder, f"custom resource definitions of {GROUP}/{VERSION}")
    return found


def check_schema(manifest: Manifest, schemas: Mapping[str, Schema]) -> Iterator[Problem]:
    """Problems of a document of KubeRay's."""
    schema = schemas.get(manifest.kind)
    if schema is None:
        told = f"{GROUP}/{VERSION} has no kind {manifest.kind!r}: {', '.join(schemas)}"
        yield Problem(manifest=manifest, path=("kind",), told=told)
        return
    for path, told in _walk(schema, _without_nulls(manifest.data), ()):
        yield Problem(manifest=manifest, path=path, told=told)


Found = Iterator[tuple[Path, str]]


def _walk(schema: Schema, value: Any, path: Path) -> Found:
    if isinstance(value, dict):
        yield from _object(schema, value, path)
    elif isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            yield from _walk(schema["items"], item, (*path, i))
        yield from _unique(schema, value, path)
    yield from _plain_rules(schema, value, path)
    yield from _cel(schema, value, path)


def _object(schema: Schema, value: Mapping[str, Any], path: Path) -> Found:
    known: Mapping[str, Schema] = schema.get("properties", {})
    others = schema.get("additionalProperties")
    is_open = not known or others or schema.get("x-kubernetes-preserve-unknown-fields")
    for key, item in value.items():
        if key in known:
            yield from _walk(known[key], item, (*path, key))
        elif isinstance(others, dict):
            yield from _walk(others, item, (*path, key))
        elif not is_open:
            yield (*path, key), f"there is no field {key!r}{_nearest(key, known)}"
    for key in schema.get("required", ()):
        if key not in value and "default" not in known.get(key, {}):
            yield path, f"{key!r} is missing"


def _plain_rules(schema: Schema, value: Any, path: Path) -> Found:
    """What jsonschema knows of a value by itself."""
    import jsonschema

    deeper = ("properties", "items", "required", "additionalProperties")
    own = {name: rule for name, rule in schema.items() if name not in deeper}
    for error in jsonschema.Draft4Validator(own).iter_errors(value):
        yield path, error.message


def _unique(schema: Schema, value: list[Any], path: Path) -> Found:
    """Items of a list that is a map differ in its keys."""
    keys = schema.get("x-kubernetes-list-map-keys", ())
    properties = schema.get("items", {}).get("properties", {})
    seen: set[tuple[Any, ...]] = set()
    for i, item in enumerate(value if keys else ()):
        own = tuple(item.get(key, properties.get(key, {}).get("default")) for key in keys)
        if own in seen:
            yield (*path, i), f"{', '.join(keys)}={', '.join(map(str, own))} occurs twice"
        seen.add(own)


def _cel(schema: Schema, value: Any, path: Path) -> Found:
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"])({"self": value}):
            yield path, rule.get("message", rule["rule"])


@cache
def _holds(rule: str) -> Any:
    """A CEL rule as a function; raises InvalidOption where the package is missing."""
    try:
        import cel
    except ImportError:
        told = "CEL rules need the package common-expression-language: pip install 'paceline[k8s]'"
        raise InvalidOption("schemas", rule, told) from None
    return cel.compile(rule).execute


def _without_nulls(value: Any) -> Any:
    """As the API server sees it: a null is a field that is not given."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    found = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
