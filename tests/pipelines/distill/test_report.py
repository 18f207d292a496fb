"""A run's page: it needs nothing else, shows what it was told, and marks what is beyond a floor."""

import json
import re

import pytest

from models.training.log import Log
from pipelines.distill.findings import Bars, Findings, Picture, Table
from pipelines.distill.report.chart import line_chart
from pipelines.distill.report.report import write_report
from pipelines.output.contact_sheet import sheet

FINDINGS = Findings(
    headline=["One pass makes an image in 4 ms instead of 115 ms."],
    tables=[
        Table(
            title="Images of each way",
            heads=["images by", "fd-clf"],
            rows=[["teacher", "0.1"], ["1 <step>", "0.4*"]],
            floor=0,
        )
    ],
    bars=[Bars(title="Time", unit="ms", lengths={"teacher": 115.0, "1 step": 4.0})],
    pictures=[Picture(title="Images", file="samples.png")],
    words={"fd-clf": "a distance"},
)


@pytest.fixture
def run(tmp_path):
    about = {"config": {"target": "models/x"}, "versions": {"torch": "2"}, "decides": {"seed": 0}}
    (tmp_path / "run.json").write_text(json.dumps(about))
    (tmp_path / "samples.png").write_bytes(sheet([[]]))
    with Log(tmp_path / "train", done=0) as log:
        log.add_exam(0, {"divergence": 2.0, "score": -2.0})
        for step in range(1, 1001):
            log.add({"step": step, "loss": 1 / step})
        log.add_exam(700, {"divergence": 1.0, "score": -1.0})
        log.add_exam(1000, {"divergence": 1.5, "score": -1.5})
    return tmp_path


def test_the_page_stands_alone_and_shows_what_was_found(run):
    findings = Findings.from_dict(json.loads(json.dumps(FINDINGS.as_dict())))
    write_report(run, "A student of x", findings, {"train": 12.3})
    page = (run / "report.html").read_text()
    assert not re.findall(r"<script|<link|@import|(?:src|href)=\"(?!data:)", page)
    assert "prefers-color-scheme: dark" in page
    for told in ("A student of x", FINDINGS.headline[0], "a distance", "115 ms", "12 s"):
        assert told in page
    assert '<td class="beyond">0.4*</td>' in page
    assert '<tr class="floor"><td>teacher</td>' in page
    assert "1 &lt;step&gt;" in page
    assert "after 700 steps had the best exam" in page
    assert page.count("<svg") == 2
    assert "held-out records: divergence." in page
    assert len(page) < 60_000  # a thousand steps are drawn as a few hundred points


def test_figures_of_an_exam_may_share_a_chart(run):
    findings = Findings(headline=[], curves={"both": ["divergence", "score"]})
    findings = Findings.from_dict(json.loads(json.dumps(findings.as_dict())))
    write_report(run, "x", findings, {})
    page = (run / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "held-out records: both." in page
    for number, name in enumerate(("divergence", "score")):
        assert re.search(rf'<tspan class="line{number}"[^>]*>{name}</tspan>', page)
        assert f'<path class="line line{number}"' in page


def test_a_chart_places_points_between_its_axes():
    drawn = line_chart({"a": [(0, 1.0), (5, 10.0), (10, 100.0)]}, x="step", y="loss", log=True)
    (path,) = re.findall(r'class="line line0" d="M([^"]*)"', drawn)
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)  # equal steps on a logarithmic scale
    assert line_chart({}, x="step", y="loss") == ""
    assert "nan" not in line_chart({"a": [(1, 3.0)]}, x="step", y="loss")
