"""The clusters that a document describes: its own, a job's, a service's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.check.manifest import Manifest, Path, mapping, mappings

# Where each kind has the specification of its cluster, and of its job.
CLUSTERS: Mapping[str, Path] = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
}
JOBS: Mapping[str, Path] = {"RayJob": ("spec",), "RayCronJob": ("spec", "jobTemplate")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The head or a group of workers. `at`: its path."""

    name: str
    at: Path
    data: Mapping[str, Any]
    is_head: bool

    @property
    def labels(self) -> Mapping[str, str]:
        """Of its Ray nodes."""
        return {key: str(value) for key, value in mapping(self.data.get("labels")).items()}

    @property
    def parameters(self) -> Mapping[str, str]:
        """Of `ray start`."""
        return mapping(self.data.get("rayStartParams"))

    @property
    def pod(self) -> Mapping[str, Any]:
        """Its pods' specification."""
        return mapping(mapping(self.data.get("template")).get("spec"))

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """Its pods' containers."""
        return mappings(self.pod.get("containers"))

    @property
    def ray(self) -> Mapping[str, Any]:
        """Ray's container, the first one; empty if there is none."""
        return next(iter(self.containers), {})

    @property
    def resources(self) -> Mapping[str, Any]:
        """That its nodes offer, where it says so."""
        return mapping(self.data.get("resources"))

    def inside(self, *path: str | int) -> Path:
        """The path of something inside its pods' specification."""
        return (*self.at, "template", "spec", *path)


def groups(manifest: Manifest) -> Iterator[Group]:
    """The head first."""
    at = CLUSTERS[manifest.kind]
    cluster = manifest.at(*at)
    if not isinstance(cluster, dict):
        return
    head = cluster.get("headGroupSpec")
    if isinstance(head, dict):
        yield Group(name="head", at=(*at, "headGroupSpec"), data=head, is_head=True)
    for i, workers in enumerate(mappings(cluster.get("workerGroupSpecs"))):
        place = (*at, "workerGroupSpecs", i)
        name = str(workers.get("groupName", i))
        yield Group(name=name, at=place, data=workers, is_head=False)
