"""The configuration of Ray Serve in a RayService: fields that Serve would ignore are errors."""

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from models.errors import InvalidOption
from pipelines.check.manifest import Manifest, Path
from pipelines.check.problem import Problem
from pipelines.serve.door.access import is_loopback
from pipelines.serve.models import serve_configs

AT: Path = ("spec", "serveConfigV2")
IMPORT_PATH = "pipelines.serve.application:build"
ANYWHERE = "0.0.0.0"  # where Ray Serve listens by default
Found = Iterator[tuple[Path, str]]


def check_serve(manifest: Manifest) -> Iterator[Problem]:
    """Problems of a RayService's serveConfigV2."""
    if not isinstance(manifest.at(*AT), str):
        told = "serveConfigV2 is missing: `paceline serve ... --build FILE` writes it"
        yield Problem(manifest=manifest, path=AT, told=told)
        return
    try:
        config = manifest.inner(AT)
    except InvalidOption as error:
        yield Problem(manifest=manifest, path=AT, told=str(error))
        return
    for rule in (_unknown, _values, _applications, _open):
        for path, told in rule(config):
            yield Problem(manifest=config, path=path, told=told, owner=manifest)


def _open(config: Manifest) -> Found:
    """What listens beyond the machine needs keys."""
    given = config.data.get("http_options")
    host = given.get("host", ANYWHERE) if isinstance(given, dict) else ANYWHERE
    for i, application in enumerate(config.data.get("applications") or ()):
        args = application.get("args") if isinstance(application, dict) else None
        if isinstance(args, dict) and not args.get("api_key_file") and not is_loopback(str(host)):
            told = f"http_options.host is {host!r}: api_key_file is needed, or a loopback address"
            yield ("applications", i, "args"), told


def _unknown(config: Manifest) -> Found:
    yield from _unknown_in(ServeDeploySchema, config.data, ())


def _unknown_in(model: type[BaseModel], data: Any, path: Path) -> Found:
    for key, value in data.items() if isinstance(data, dict) else ():
        field = model.model_fields.get(key)
        if field is None:
            known = list(model.model_fields)
            near = difflib.get_close_matches(str(key), known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f": {', '.join(known)}"
            yield (*path, key), f"Ray Serve has no field {key!r} here and would ignore it{meant}"
            continue
        for inner in _models(field.annotation):
            if isinstance(value, list):
                for i, item in enumerate(value):
                    yield from _unknown_in(inner, item, (*path, key, i))
            else:
                yield from _unknown_in(inner, value, (*path, key))


def _models(hint: Any) -> Iterator[type[BaseModel]]:
    """The models that a field's type names."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for part in get_args(hint):
        yield from _models(part)


def _values(config: Manifest) -> Found:
    try:
        ServeDeploySchema.model_validate(dict(config.data))
    except ValidationError as error:
        for found in error.errors():
            yield tuple(found["loc"]), found["msg"]


def _applications(config: Manifest) -> Found:
    """What our application makes of its arguments."""
    for i, application in enumerate(config.data.get("applications") or ()):
        at: Path = ("applications", i)
        if not isinstance(application, dict):
            continue
        if application.get("import_path") != IMPORT_PATH:
            yield (*at, "import_path"), f"{IMPORT_PATH} is needed"
            continue
        args = application.get("args")
        try:
            serve_configs(args if isinstance(args, dict) else {})
        except InvalidOption as error:
            named = error.field in (args or {})
            yield (*at, "args", error.field) if named else (*at, "args"), str(error)
