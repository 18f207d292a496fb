"""Runs an evaluation: reads the sets, measures every figure beside its floor, writes the report."""

import json
from collections.abc import Sequence

from tqdm import tqdm

from cluster.storage import storage
from models.metrics.compare import Outcome, compare
from pipelines.errors import OutputRefused
from pipelines.evaluate.choose import Sets, choose, design_of
from pipelines.evaluate.classify import FOLDER
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.figures import Figures, split
from pipelines.evaluate.find import open_source
from pipelines.evaluate.plots import draw_figures, draw_samples
from pipelines.evaluate.report import Report
from pipelines.evaluate.samples import Source
from pipelines.generate.reporting.summary import versions
from pipelines.options import as_dict


def evaluate(config: EvaluateConfig) -> Report:
    """Measure samples against a reference; see `paceline evaluate --help`.

    Raises:
        InvalidInput: a set cannot be read, has too few rows or lacks what a figure needs.
        OutputRefused: the output folder is one of the sets.
        StorageError: the output cannot be written.
        UnsupportedCheckpoint: the classifier or the teacher cannot be loaded.
    """
    _refuse_output(config)
    samples = open_source(config.samples, config)
    reference = open_source(config.reference, config)
    floor = None if config.floor is None else open_source(config.floor, config)
    sets = choose(samples, reference, floor, max_rows=config.max_rows, seed=config.seed)
    names, skipped = split(sets, config)
    figures = Figures(sets, config)
    outcomes = _measured(figures, names)
    judged = "judge" in vars(figures)  # some figure needed it
    report = Report(
        outcomes=outcomes,
        rows=_rows(sets, samples, floor or reference, reference),
        skipped=skipped,
        classifier=figures.judge.told() if judged else None,
        facts=figures.judge.as_dict() if judged else {},
        versions=versions(),
        config=as_dict(config),
    )
    if config.output is not None:
        _write(config.output, report, sets)
        if judged:
            figures.judge.save(storage.join(storage.normalize(config.output), FOLDER))
    return report


def _measured(figures: Figures, names: Sequence[str]) -> tuple[Outcome, ...]:
    """The figures' values, intervals and floors, with a progress bar."""
    config = figures.config
    with tqdm(total=2 * len(names), desc="evaluate", disable=not config.progress) as bar:

        def done(name: str) -> None:
            bar.set_postfix_str(name, refresh=False)
            bar.update()

        measures = {}
        for name in names:
            measures[name] = figures.makers[name]()
            done(name)
        design, resamples = design_of(figures.sets), config.bootstrap
        return tuple(compare(measures, design, resamples=resamples, seed=config.seed, done=done))


def _rows(
    sets: Sets, samples: Source, floor: Source, reference: Source
) -> dict[str, dict[str, int]]:
    used = zip(
        ("samples", "floor", "reference"), sets.all(), (samples, floor, reference), strict=True
    )
    return {
        name: {"used": part.num_rows, "there": source.num_rows, "dropped": source.num_dropped}
        for name, part, source in used
    }


def _write(output: str, report: Report, sets: Sets) -> None:
    folder = storage.normalize(output)
    files = {
        "evaluation.json": json.dumps(report.as_dict(), indent=1).encode() + b"\n",
        "evaluation.png": draw_figures(report.outcomes),
    }
    if sets.samples.images is not None and sets.reference.images is not None:
        files["samples.png"] = draw_samples(sets.samples, sets.reference)
    for name, data in files.items():
        storage.publish(storage.join(folder, name), data)


def _refuse_output(config: EvaluateConfig) -> None:
    """A folder that cannot be written, or a set: pictures in it would be samples next time."""
    if config.output is None:
        return
    output = storage.normalize(config.output) + "/"
    for url in (config.samples, config.reference, config.floor):
        if url is not None and output.startswith(storage.normalize(url) + "/"):
            raise OutputRefused(
                f"output {config.output!r} lies in {url!r}, which is input: give another"
            )
    storage.check_writable(storage.join(output, "evaluation.json"))
