"""`paceline distill student`: records, training, evaluation and export, each done once."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cluster import storage
from cluster.connect import connected
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.students.config import MadeFor
from models.tokenizers.about import ImageTarget, image_target
from models.training.student_step import TrainingPlan
from pipelines.distill.config import DistillConfig
from pipelines.distill.folder import RunFolder, open_path
from pipelines.distill.records import LABEL, digest_of, files_of, make_records
from pipelines.generate.fingerprint import checkpoint_digest
from pipelines.generate.summary import versions
from pipelines.options import as_dict, deciding
from pipelines.output.manifest import claimed

HELD_OUT_SEED = 2**62  # added to the run's seed, so that no held-out image is a record
BATCHES = (1, 64)  # sizes at which the evaluation measures time


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """A run that was checked: options, target, folder."""

    config: DistillConfig
    about: ImageTarget
    made_for: MadeFor
    path: Path

    @property
    def guidance(self) -> float:
        """The scale of the laws to learn."""
        given = self.config.guidance
        return self.about.guidance if given is None else given


def distill(config: DistillConfig, *, tell: Callable[[str], None] = print) -> Path:
    """Make a student; returns its folder. A run that was interrupted continues.

    Raises:
        PacelineError: what the user gave cannot work (these are ValueErrors), or JobFailed.
    """
    run = check(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with claimed(str(run.path)):
        folder = RunFolder(run.path, tell=tell)
        if not config.resume:
            folder.clear()
        folder.describe(_about(run))
        if not (run.path / "_stages" / "train.json").exists():
            _tell_estimate(run, tell)
        with _cluster(config):
            data = folder.stage("records", lambda: _records(run))
            folder.stage("train", lambda: _train(run, data))
            folder.stage("evaluate", lambda: _evaluate(run, tell))
        folder.stage("export", lambda: _export(run))
    return run.path / "export"


def check(config: DistillConfig) -> Distillation:
    """Refuse what cannot work, before anything is written.

    Raises:
        PacelineError: the target is no raster image target, or the output cannot be used.
    """
    from models.students.teacher import load_teacher

    about = image_target(config.target)
    if about is None:
        told = "students are made of image targets"
        raise UnsupportedCheckpoint(f"target {config.target!r} generates text: {told}")
    load_teacher(config.target)
    most = about.num_tokens
    if config.passes[-1] > most:
        raise InvalidOption("steps", config.steps, f"at most {most}, the tokens of an image")
    if config.data is not None:
        files_of(config.data)
    folder = str(Path(config.target).absolute())
    return Distillation(
        config=replace(config, target=folder),
        about=about,
        made_for=MadeFor(path=folder, digest=checkpoint_digest(folder)),
        path=open_path(config.output),
    )


def _about(run: Distillation) -> dict[str, Any]:
    decides: dict[str, Any] = deciding(run.config) | {"target": run.made_for.digest}
    if run.config.data is not None:
        decides["data"] = digest_of(files_of(run.config.data))
    return {"decides": decides, "config": as_dict(run.config), "versions": versions()}


def _tell_estimate(run: Distillation, tell: Callable[[str], None]) -> None:
    from pipelines.distill.estimate import estimate

    expected = estimate(run.config, run.made_for, run.guidance)
    for line in expected.lines():
        tell(line)
    expected.refuse_without_room(run.path)


@contextmanager
def _cluster(config: DistillConfig) -> Iterator[None]:
    """One connection for all stages."""
    needed = max(config.workers, config.target_actors) + 2
    with connected(config.address, min_cpus=needed):
        yield


def _records(run: Distillation) -> dict[str, Any]:
    config, path = run.config, run.path
    held = make_records(
        config,
        run.about,
        path / "held-out",
        rows=2 * config.eval_rows,
        seed=(config.seed + HELD_OUT_SEED) % 2**63,
    )
    if config.data is not None:
        files = files_of(config.data)
        return {"held_out": held, "files": files, "digest": digest_of(files)}
    made = make_records(config, run.about, path / "records", rows=config.records, seed=config.seed)
    return {**made, "held_out": held, "files": files_of(path / "records")}


def _train(run: Distillation, data: Mapping[str, Any]) -> Mapping[str, Any]:
    from actors.student_trainer import StudentTraining
    from pipelines.distill.train import train

    config = run.config
    plan = TrainingPlan(
        steps=config.train_steps, batch=config.train_batch, rate=config.rate, seed=config.seed
    )
    return train(
        StudentTraining(
            folder=str(run.path / "train"),
            target=config.target,
            made_for=run.made_for,
            files=tuple(data["files"]),
            label_field=config.label_field if config.data else LABEL,
            guidance=run.guidance,
            plan=plan,
            save_every=config.save_every,
            threads=config.threads or max(1, (os.cpu_count() or 1) // config.workers),
            agreed=_about(run)["decides"] | {"records": data["digest"]},
        ),
        workers=config.workers,
        progress=config.progress,
    )


def _evaluate(run: Distillation, tell: Callable[[str], None]) -> dict[str, Any]:
    from pipelines.distill.judge import TEACHER, judge
    from pipelines.distill.pictures import draw_curves, draw_sheet
    from pipelines.distill.samples import INDEPENDENT, name_of, write_samples
    from pipelines.distill.timing import times_of

    config, path, student = run.config, run.path, run.path / "train" / "student"
    made = write_samples(
        path / "samples",
        student,
        config.passes,
        rows=config.eval_rows,
        seed=(config.seed + HELD_OUT_SEED + 1) % 2**63,
    )
    folders = {name: path / place for name, place in made.items()}
    passes = {TEACHER: run.about.num_tokens, INDEPENDENT: 0}
    found = judge(
        folders,
        path / "held-out",
        target=config.target,
        guidance=run.guidance,
        classifier=config.classifier,
        output=path / "evaluation",
        ms_per_image=times_of(student, config.target, run.guidance, config.passes, BATCHES),
        passes=passes | {name_of(count): count for count in config.passes},
    )
    draw_curves(path / "train" / "metrics.jsonl", path / "evaluation" / "curves.png")
    draw_sheet({TEACHER: path / "held-out", **folders}, path / "evaluation" / "samples.png")
    tell("\n".join(found.lines()))
    return found.as_dict()


def _export(run: Distillation) -> dict[str, Any]:
    place, new = run.path / "export", run.path / "export.new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(run.path / "train" / "student", new)
    report = (run.path / "evaluation" / "evaluation.json").read_bytes()
    storage.publish(str(new / "report.json"), report)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    return {"folder": str(place)}
