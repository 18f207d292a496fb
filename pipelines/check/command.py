"""`paceline check`: validates manifests without a cluster."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from pipelines.flags import Subparsers, add_parser

ABOUT = """\
Validate manifests for Kubernetes offline: KubeRay's schemas with their rules,
Kubernetes' own kinds, what the KubeRay operator refuses, the fields of Ray
Serve, and the roles and resources that Paceline's processes ask for.

Every overlay in the folder is rendered by `kubectl kustomize`. Each problem is
told with the file and line that it comes from. Exit code 1: there are some.
"""
EXAMPLE = """\
example: check the overlays of this repository

  kubectl get crd -o yaml rayclusters.ray.io > crds/rayclusters.yaml  # and so on
  paceline check k8s/ --schemas crds/
"""


def register(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_parser(
        subparsers,
        "check",
        usage="paceline check FOLDER [--schemas FOLDER]",
        summary="validate manifests for Kubernetes, offline",
        about=ABOUT,
        example=EXAMPLE,
    )
    parser.add_argument("folder", metavar="FOLDER", help="overlays, or rendered YAML files")
    parser.add_argument(
        "--schemas",
        metavar="FOLDER",
        help="KubeRay's custom resource definitions; default: schemas are not checked",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the problems; 0 if there are none."""
    from pipelines.check.check import check

    count = 0
    for line in told(check(Path(options.folder), schemas=options.schemas)):
        print(line)
        count += 1
    if count:
        print(f"{count} problem{'' if count == 1 else 's'}")
        return 1
    left_out = "" if options.schemas else " (schemas were not checked: give --schemas FOLDER)"
    print(f"{options.folder}: no problems{left_out}")
    return 0


def told(found: Iterator[tuple[str, str]]) -> Iterator[str]:
    """A line for each problem; those that one source line causes in several places once."""
    seen: set[tuple[str, str]] = set()
    for place, text in found:
        if (place, text) not in seen:
            seen.add((place, text))
            yield f"{place}: {text}"
