"""A run's report.html: what came out, how the training went, and what was done."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.storage import storage
from models.training.kind import SCORE
from models.training.log import EXAMS, METRICS, read_lines
from pipelines.distill.findings import Findings
from pipelines.distill.folder import ABOUT, REPORT
from pipelines.distill.report import page
from pipelines.distill.report.chart import Points, line_chart

SMOOTH = 20  # steps
MAX_POINTS = 400  # of a line


def write_report(
    run: Path, title: str, findings: Findings, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Write the page from the run's folder; `seconds`: of each stage."""
    about = json.loads((run / ABOUT).read_text(encoding="utf-8"))
    parts = [
        page.title(title),
        page.paragraph(f"target {about['config']['target']}", "soft"),
        *(page.paragraph(sentence, "headline") for sentence in findings.headline),
        *_found(run, findings),
        page.heading("Training"),
        page.side_by_side(_curves(run / "train", findings.curves or {})),
        *_chosen(run / "train"),
        page.heading("Run"),
        page.facts({f"{name} took": f"{taken:.0f} s" for name, taken in seconds.items()}),
        page.facts(about["config"], "options"),
        page.facts(about["versions"], "versions"),
        page.facts(about["decides"], "what decides the result"),
    ]
    file = run / REPORT
    storage.publish(str(file), page.page(title, parts))
    return {"file": str(file)}


def _found(run: Path, findings: Findings) -> list[str]:
    out = []
    for picture in findings.pictures:
        out += [page.picture((run / picture.file).read_bytes(), picture.title)]
    for table in findings.tables:
        out += [page.heading(table.title), page.table(table)]
    if findings.words:
        out.append(page.facts(findings.words, "what the figures mean"))
    if findings.bars:
        out.append(page.heading("Time"))
        out.append(page.side_by_side([page.bars(bars) for bars in findings.bars]))
    return out


def _curves(train: Path, shared: Mapping[str, Sequence[str]]) -> list[str]:
    steps, exams = read_lines(train / METRICS), read_lines(train / EXAMS)
    losses = [(line["step"], line["loss"]) for line in steps]
    best = _best(exams)
    out = [
        page.figure(
            line_chart({"": _thinned(_smooth(losses))}, x="step", y="loss", log=True),
            f"Loss of the training samples, mean of {SMOOTH} steps, on a logarithmic scale.",
        )
    ]
    if exams:
        marked = None if best is None else best["step"]
        for title, names in (shared or _each(exams[0])).items():
            lines = {
                name: [(exam["step"], exam[name]) for exam in exams if name in exam]
                for name in names
                if any(name in exam for exam in exams)
            }
            told = f"Exams on held-out records: {title}."
            out.append(page.figure(line_chart(lines, x="step", y="", marked=marked), told))
    return out


def _each(exam: Mapping[str, float]) -> dict[str, list[str]]:
    """A chart for each figure."""
    return {name: [name] for name in exam if name not in ("step", SCORE)}


def _chosen(train: Path) -> list[str]:
    best = _best(read_lines(train / EXAMS))
    if best is None:
        return []
    told = (
        f"The state after {best['step']:.0f} steps had the best exam and was exported; in the "
        "charts of exams, a dashed line marks it."
    )
    return [page.paragraph(told)]


def _best(exams: Sequence[Mapping[str, float]]) -> Mapping[str, float] | None:
    return max(exams, key=lambda exam: exam[SCORE]) if exams else None


def _smooth(points: Points) -> Points:
    size = min(SMOOTH, len(points))
    return [
        (points[at][0], sum(y for _, y in points[at - size + 1 : at + 1]) / size)
        for at in range(size - 1, len(points))
    ]


def _thinned(points: Points) -> Points:
    """At most MAX_POINTS of the points and the last one."""
    every = max(1, len(points) // MAX_POINTS)
    return [*points[:-1:every], *points[-1:]]
