"""All checks of a folder of manifests."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.check.clusters import CLUSTERS, JOBS
from pipelines.check.core_kinds import check_core
from pipelines.check.job_rules import check_job
from pipelines.check.manifest import Manifest
from pipelines.check.metric_rules import check_metrics
from pipelines.check.operator_rules import check_operator
from pipelines.check.problem import Problem
from pipelines.check.render import origin, rendered
from pipelines.check.role_rules import check_roles
from pipelines.check.schemas import GROUP, check_schema, read_schemas
from pipelines.check.serve_rules import check_serve

CORE = ("v1", "apps/", "batch/", "policy/", "networking.k8s.io/", "rbac.authorization.k8s.io/")


def check(folder: Path, *, schemas: str | None) -> Iterator[tuple[str, str]]:
    """(FILE:LINE, what is wrong) of every problem.

    Raises InvalidOption: the folder or the schemas cannot be read.
    """
    known = read_schemas(schemas) if schemas else None
    for overlay in rendered(folder):
        for manifest in overlay.manifests:
            for problem in problems(manifest, known):
                yield origin(overlay, problem), f"{problem.subject}: {problem.told}"


def problems(manifest: Manifest, schemas: Mapping[str, Any] | None) -> Iterator[Problem]:
    """Of one document; `schemas`: of KubeRay's kinds, None: leave them and core kinds out."""
    group = str(manifest.data.get("apiVersion", ""))
    if schemas is not None and group.startswith(CORE):
        yield from check_core(manifest)
    yield from check_metrics(manifest)
    if not group.startswith(f"{GROUP}/"):
        return
    if schemas is not None:
        yield from check_schema(manifest, schemas)
    if manifest.kind in CLUSTERS:
        yield from check_operator(manifest)
        yield from check_roles(manifest)
    if manifest.kind in JOBS:
        yield from check_job(manifest)
    if manifest.kind == "RayService":
        yield from check_serve(manifest)
