"""Kubernetes' own kinds against its schemas, strictly: unknown keys are errors."""

from collections.abc import Iterator

from models.errors import InvalidOption
from pipelines.check.manifest import Manifest
from pipelines.check.problem import Problem

VERSION = "1.33"


def check_core(manifest: Manifest) -> Iterator[Problem]:
    """The first problem of a document, if it has one; unknown API groups are passed over."""
    try:
        import kubernetes_validate
    except ImportError:
        told = "core kinds need the package kubernetes-validate: pip install 'paceline[k8s]'"
        raise InvalidOption("schemas", manifest.kind, told) from None
    try:
        kubernetes_validate.validate(dict(manifest.data), VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = tuple(error.absolute_path)
        unknown = _unknown(error)
        told = f"there is no field {unknown!r}" if unknown else error.message
        yield Problem(manifest=manifest, path=(*path, unknown) if unknown else path, told=told)
    except kubernetes_validate.utils.SchemaNotFoundError:
        told = f"Kubernetes {VERSION} has no {manifest.data.get('apiVersion')} {manifest.kind}"
        yield Problem(manifest=manifest, path=("kind",), told=told)


def _unknown(error: object) -> str | None:
    """The key that is too many, where that is the error."""
    if getattr(error, "validator", None) != "additionalProperties":
        return None
    known = error.schema.get("properties", {})  # type: ignore[attr-defined]
    return next((key for key in error.instance if key not in known), None)  # type: ignore[attr-defined]
