"""The overlays of a folder, rendered by `kubectl kustomize`, and where their lines come from."""

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from models.errors import InvalidOption
from pipelines.check.manifest import Manifest, parse
from pipelines.check.problem import Problem

KUSTOMIZATION = "kustomization.yaml"
TIMEOUT_S = 60.0
FIELDS = ("resources", "components", "bases")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """`folder`: of the overlay. `sources`: lines of the files that it is made of, by file."""

    folder: Path
    manifests: Sequence[Manifest]
    sources: Mapping[Path, Sequence[str]]


def rendered(folder: Path) -> list[Rendered]:
    """Every overlay in a folder: each kustomization that no other one includes.

    Without a kustomization, the YAML files as they are.

    Raises InvalidOption: there is nothing to check, or kubectl is missing or refuses an overlay.
    """
    if not folder.is_dir():
        raise InvalidOption("folder", str(folder), "a folder with manifests is needed")
    tops = roots(folder)
    if tops:
        return [_render(top) for top in tops]
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise InvalidOption("folder", str(folder), "it holds no kustomization.yaml, no YAML files")
    manifests = [m for file in files for m in parse(file.read_text("utf-8"), str(file))]
    return [Rendered(folder=folder, manifests=manifests, sources={})]


def roots(folder: Path) -> list[Path]:
    """The folders of kustomizations that no other one includes."""
    all_of_them = {file.parent.resolve(): file for file in folder.rglob(KUSTOMIZATION)}
    included: set[Path] = set()
    components: set[Path] = set()
    for place, file in all_of_them.items():
        said = yaml.safe_load(file.read_text("utf-8")) or {}
        included |= {(place / name).resolve() for key in FIELDS for name in said.get(key, ())}
        if said.get("kind") == "Component":
            components.add(place)
    return sorted(set(all_of_them) - included - components)


def render(folder: Path) -> str:
    """What `kubectl kustomize` makes of an overlay. Raises InvalidOption if it cannot."""
    command = ["kubectl", "kustomize", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except FileNotFoundError:
        told = "kubectl is not installed, which renders overlays; rendered YAML files are accepted"
        raise InvalidOption("folder", str(folder), told) from None
    if done.returncode:
        told = f"kubectl kustomize refuses it: {' '.join(done.stderr.split())}"
        raise InvalidOption("folder", str(folder), told)
    return done.stdout


def origin(overlay: Rendered, problem: Problem) -> str:
    """FILE:LINE of a problem, in a source file if its line is found there."""
    kind = (problem.owner or problem.manifest).kind
    wanted = _plain(problem.manifest.text(problem.path))
    found = [
        (file, number)
        for file, lines in overlay.sources.items()
        for number, text in enumerate(lines, start=1)
        if (problem.needle in text if problem.needle else _plain(text) == wanted)
    ]
    if not found:
        return f"{problem.manifest.place}:{problem.line}"
    told = f"kind: {kind}"
    mine = [place for place in found if any(told in text for text in overlay.sources[place[0]])]
    file, number = (mine or found)[0]
    return f"{_shown(file)}:{number}"


def _render(folder: Path) -> Rendered:
    place = f"{_shown(folder)} (rendered)"
    return Rendered(
        folder=folder,
        manifests=parse(render(folder), place),
        sources={file: file.read_text("utf-8").splitlines() for file in _files(folder, set())},
    )


def _files(folder: Path, seen: set[Path]) -> Iterable[Path]:
    """The files of a kustomization, its own first, then those that it includes, the last first."""
    if folder in seen:
        return
    seen.add(folder)
    yield from sorted(folder.glob("*.yaml"))
    said = yaml.safe_load((folder / KUSTOMIZATION).read_text("utf-8")) or {}
    for key in reversed(FIELDS):
        for name in reversed(said.get(key, [])):
            inner = (folder / name).resolve()
            if (inner / KUSTOMIZATION).exists():
                yield from _files(inner, seen)


def _plain(line: str) -> str:
    """A line without what rendering changes: indentation, quotes, spaces, a list's dash."""
    return re.sub(r"\s+", " ", line.strip().removeprefix("- ").replace('"', "").replace("'", ""))


def _shown(path: Path) -> str:
    """As short as can be."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
