"""Alert rules and dashboards: every query names metrics that the server exports."""

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any

from models.errors import InvalidOption
from pipelines.check.manifest import Manifest, Path, mapping, parse
from pipelines.check.problem import Problem
from pipelines.serve.metrics import HISTOGRAM, METRICS

OURS = re.compile(r"\bpaceline_\w+")
OF_HISTOGRAMS = ("_bucket", "_sum", "_count")


def exported() -> set[str]:
    """The names that Prometheus knows the server's metrics by."""
    names: set[str] = set()
    for name, metric in METRICS.items():
        names |= {name + end for end in OF_HISTOGRAMS} if metric.kind == HISTOGRAM else {name}
    return names


def check_metrics(manifest: Manifest) -> Iterator[Problem]:
    """Problems of a PrometheusRule, or of a ConfigMap with dashboards."""
    if manifest.kind == "PrometheusRule":
        for path, expr in _expressions(manifest.data, ()):
            for name, told in _unknown(expr):
                yield Problem(manifest=manifest, path=path, told=told, needle=name)
    if manifest.kind == "ConfigMap":
        for file, text in mapping(manifest.data.get("data")).items():
            if file.endswith(".json") and isinstance(text, str):
                yield from _dashboard(manifest, ("data", file), text)


def _dashboard(manifest: Manifest, at: Path, text: str) -> Iterator[Problem]:
    try:
        json.loads(text)
        (board,) = parse(text, manifest.place)  # JSON is YAML, and so its lines are known
    except (ValueError, InvalidOption) as error:
        yield Problem(manifest=manifest, path=at, told=f"no JSON: {error}")
        return
    for _, expr in _expressions(board.data, ()):
        for name, told in _unknown(expr):
            inner = manifest.inner(at)
            path = next(p for p, e in _expressions(inner.data, ()) if e == expr)
            yield Problem(manifest=inner, path=path, told=told, needle=name, owner=manifest)


def _expressions(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """The queries in a rule or a dashboard."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("expr", "query") and isinstance(item, str):
                yield (*path, key), item
            else:
                yield from _expressions(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _expressions(item, (*path, i))


def _unknown(expr: str) -> Iterator[tuple[str, str]]:
    known = exported()
    for name in dict.fromkeys(OURS.findall(expr)):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            yield name, f"the server exports no metric {name}{meant}"
