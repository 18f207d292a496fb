"""What is wrong with a manifest, and where."""

from dataclasses import dataclass

from pipelines.check.manifest import Manifest, Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`path`: of the value that is wrong. `needle`: a part of it that stands on its line."""

    manifest: Manifest
    path: Path
    told: str
    needle: str = ""
    owner: Manifest | None = None  # the document, where `manifest` is a text inside it

    @property
    def line(self) -> int:
        """In the text that was checked."""
        return self.manifest.line(self.path)

    @property
    def subject(self) -> str:
        """RayJob/generate spec.entrypoint."""
        owner = self.owner or self.manifest
        return f"{owner.kind}/{owner.name} {dotted(self.path)}".strip()


def dotted(path: Path) -> str:
    """spec.workerGroupSpecs[0].minReplicas."""
    told = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return told.removeprefix(".")
