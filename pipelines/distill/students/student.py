"""`paceline distill student`: what a student's own stages do."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster.storage.checkpoints import present
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import require
from models.students.config import MadeFor
from models.students.kind import StudentLessons, build_student
from models.students.methods import BY_SCORE
from models.students.records import read_records
from models.students.start import config_of
from models.students.teacher import load_teacher
from models.targets.load import pick_device
from models.tokenizers.about import ImageTarget, image_target
from models.training.engines.worker import Worker
from models.training.kind import Kind
from models.training.log import METRICS
from pipelines.checkpoints import with_local
from pipelines.distill.curves import CURVES, draw_curves
from pipelines.distill.estimate import Estimate, estimate
from pipelines.distill.findings import Findings
from pipelines.distill.folder import open_path
from pipelines.distill.given_rows import UNCHANGED, check_rows
from pipelines.distill.records import LABEL, digest_of, files_of, make_records, num_asked
from pipelines.distill.stages import Renewal, run_stages
from pipelines.distill.students.config import StudentOptions
from pipelines.distill.students.judge import EVALUATION, SHEET, TEACHER, judge
from pipelines.distill.students.samples import INDEPENDENT, name_of, write_samples
from pipelines.distill.students.sheet import draw_sheet
from pipelines.distill.students.timing import times_of
from pipelines.evaluate.classify import check_classifier
from pipelines.evaluate.config import EvaluateConfig
from pipelines.generate.fingerprint import checkpoint_digest

HELD_OUT_SEED = 2**62  # added to the run's seed, so that no held-out image is a record
BATCHES = (1, 64)  # sizes at which the evaluation measures time


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentRun:
    """A student's distillation that was checked; a `Run` (pipelines/distill/stages.py)."""

    config: StudentOptions
    about: ImageTarget
    made_for: MadeFor
    most: int  # passes of the target for an image, which are the most of a student, too
    path: Path

    def on(self, device: str) -> "StudentRun":
        """The same on "cpu" or "cuda"."""
        return replace(self, config=replace(self.config, device=device))

    @property
    def guidance(self) -> float:
        """The scale of the laws to learn."""
        given = self.config.guidance
        return self.about.guidance if given is None else given

    @property
    def digest(self) -> str:
        """Of the target's files."""
        return self.made_for.digest

    @property
    def digests(self) -> Mapping[str, str]:
        """None but those of every run."""
        return {}

    def estimate(self) -> Estimate:
        """Measured on a few images."""
        return estimate(self.config, self.made_for, self.guidance)

    def records(self) -> dict[str, Any]:
        """The target's images to learn from."""
        config, folder = self.config, self.path / "records"
        if config.data is not None:
            files = files_of(config.data)
            return {"files": files, "digest": digest_of(files)}
        made = make_records(config, self.about, folder, rows=config.num_records, seed=config.seed)
        return {**made, "files": files_of(folder)}

    def hold_out(self) -> None:
        """More of the target's images; those of another --eval-rows are discarded."""
        config, folder = self.config, self.path / "held-out"
        rows = 2 * config.eval_rows
        if num_asked(folder) not in (None, rows):
            shutil.rmtree(folder, ignore_errors=True)
        seed = (config.seed + HELD_OUT_SEED) % 2**63
        make_records(config, self.about, folder, rows=rows, seed=seed)

    def build(self, data: Mapping[str, Any]) -> Callable[[Worker], Kind]:
        """The student, started from the target."""
        lessons = StudentLessons(
            target=self.config.target,
            made_for=self.made_for,
            files=tuple(data["files"]),
            label_field=self.config.label_field if self.config.data else LABEL,
            guidance=self.guidance,
            method=self.config.method,
            seed=self.config.seed,
            layers=self.config.layers,
        )
        return partial(_build, lessons)

    def renewals(self, data: Mapping[str, Any]) -> Sequence[Renewal]:
        """None: a student learns from the same images all the time."""
        return ()

    def building(
        self, data: Mapping[str, Any], tell: Callable[[str], None], *, until: int
    ) -> AbstractContextManager[Callable[[Worker], Kind]]:
        """The teacher is in the training processes: nothing else is needed."""
        return nullcontext(self.build(data))

    @property
    def title(self) -> str:
        """Of the report."""
        return f"A student of {Path(self.config.target).name}"

    def evaluate(self, trained: Path, tell: Callable[[str], None]) -> Findings:
        """Images of each way of sampling beside the target's."""
        config, path, target = self.config, self.path, present(self.config.target)
        made = write_samples(
            path / "samples",
            trained,
            config.passes,
            device=pick_device(config.device),
            rows=config.eval_rows,
            seed=(config.seed + HELD_OUT_SEED + 1) % 2**63,
        )
        folders = {name: path / place for name, place in made.items()}
        passes = {TEACHER: self.most, INDEPENDENT: 0}
        times = times_of(
            trained, target, self.guidance, config.passes, BATCHES, device=config.device
        )
        found = judge(
            folders,
            path / "held-out",
            target=target,
            guidance=self.guidance,
            device=config.device,
            classifier=config.classifier,
            output=path / EVALUATION,
            ms_per_image=times,
            passes=passes | {name_of(count): count for count in config.passes},
        )
        draw_curves(
            path / "train" / METRICS,
            path / EVALUATION / CURVES,
            loss="a place",
            log_scale=True,
        )
        draw_sheet({TEACHER: path / "held-out", **folders}, path / EVALUATION / SHEET)
        tell("\n".join(found.lines()))
        return found.findings()


def _judged_by(config: StudentOptions) -> EvaluateConfig:
    """An evaluation with the classifier, of no samples yet."""
    return EvaluateConfig(samples="none", reference="none", classifier=config.classifier)


def _build(lessons: StudentLessons, worker: Worker) -> Kind:
    """On a worker, whose node may not have fetched the target yet."""
    return build_student(replace(lessons, target=present(lessons.target)), worker)


def distill(config: StudentOptions, *, tell: Callable[[str], None] = print) -> Path:
    """Make a student; returns its folder. A run that was interrupted continues.

    Raises:
        PacelineError: what the user gave cannot work (these are ValueErrors), or JobFailed.
    """
    return run_stages(check(with_local(config)), tell=tell)


def check(config: StudentOptions) -> StudentRun:
    """Refuse what cannot work, before anything is written.

    Raises:
        PacelineError: no student can be made of the target, or the output cannot be used.
    """
    about = image_target(config.target)
    if about is None:
        told = "students are made of image targets"
        raise UnsupportedCheckpoint(f"target {config.target!r} generates text: {told}")
    folder = str(Path(config.target).absolute())
    made_for = MadeFor(path=folder, digest=checkpoint_digest(folder))
    if config.method == BY_SCORE:
        told = f"none with --method {BY_SCORE}: its two networks are whole on every worker"
        require(config.deepspeed is None, "deepspeed", config.deepspeed, told)
    teacher = load_teacher(folder)
    deep = teacher.config.num_layers
    told = f"at most {deep}, the target's"
    require(config.layers is None or config.layers <= deep, "layers", config.layers, told)
    student = config_of(teacher, made_for, method=config.method)
    most = 1 + len(student.bounds)
    if config.passes[-1] > most:
        told = "the tokens of an image" if about.in_order else "the maps of an image"
        raise InvalidOption("steps", config.steps, f"at most {most}, {told}")
    labels = [str(row) for row in range(min(about.num_classes, 2 * config.eval_rows))]
    check_classifier(_judged_by(config), labels)
    guidance = about.guidance if config.guidance is None else config.guidance
    if config.data is not None:  # the training reads all
        files = files_of(config.data)
        check_rows(files, made_for, {**UNCHANGED, "guidance": guidance})
        read_records(files[:1], teacher.config, label_field=config.label_field)
    return StudentRun(
        config=replace(config, target=folder, records=config.num_records or None),
        about=about,
        made_for=made_for,
        most=most,
        path=open_path(config.output),
    )
